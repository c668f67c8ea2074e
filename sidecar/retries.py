"""Pauses between tries, one counter for each thing tried."""

from __future__ import annotations

import random

from wire import backoff


class Retries:
    """Counts failures in a row; `pause` grows with them, with full jitter."""

    def __init__(self) -> None:
        self._attempt = 0
        self._chance = random.SystemRandom()

    def pause(self) -> float:
        """Seconds to wait before the next try."""
        self._attempt += 1
        return backoff.delay(self._attempt - 1, self._chance.random())

    def succeeded(self) -> None:
        self._attempt = 0
