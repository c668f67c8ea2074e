"""Until a sidecar answers for it, a program that was started under a filter may go on with whatever it calls."""

from __future__ import annotations

import asyncio
import os

from measurer.seccomp.listener import Listener


class Answering:
    """listener: ours from here on, until it is handed over."""

    def __init__(self, listener: int) -> None:
        self._listener = Listener(listener)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener, self._answer)

    def hand_over(self) -> int:
        """Whoever asks from now on waits for the one who is given this."""
        self._loop.remove_reader(self._listener.descriptor)
        return self._listener.descriptor

    def close(self) -> None:
        """Ours of it. Where nobody else has it, whoever asks gets ENOSYS."""
        self._loop.remove_reader(self._listener.descriptor)
        os.close(self._listener.descriptor)

    def _answer(self) -> None:
        for asked in self._listener.asked():
            self._listener.let_through(asked)
        if self._listener.over:
            self._loop.remove_reader(self._listener.descriptor)
