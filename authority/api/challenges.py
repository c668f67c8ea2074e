"""Challenges that open a session: recognised by their MAC, good for half a minute, and once."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable

from attestation import nonce
from attestation.errors import Refused
from authority.keyring import Keyring
from wire.problems import Kind

VALID_MS = 30_000
_NOBODY = bytes(16)


class Challenges:
    """clock: Unix seconds."""

    def __init__(self, keyring: Keyring, clock: Callable[[], float]) -> None:
        self._keyring = keyring
        self._clock = clock
        self._used: OrderedDict[bytes, int] = OrderedDict()

    def issue(self) -> bytes:
        return nonce.issue(
            self._keyring.nonce_key,
            _NOBODY,
            sequence=0,
            issued_ms=self._now_ms(),
            epoch=self._keyring.epoch,
            random=secrets.token_bytes(nonce.RANDOM_SIZE),
        )

    def redeem(self, challenge: bytes) -> None:
        """Raises Refused (proof-invalid) for one that is forged, stale or used."""
        now_ms = self._now_ms()
        epoch, key = self._keyring.epoch, self._keyring.nonce_key
        checked = nonce.check(key, challenge, _NOBODY, epoch=epoch, now_ms=now_ms, valid_ms=VALID_MS)
        if checked.faults or challenge in self._used:
            raise Refused(
                "the challenge is forged, stale or used already",
                kind=Kind.PROOF_INVALID,
                where="session",
                mend="Ask for another.",
            )
        self._used[challenge] = now_ms
        while self._used and now_ms - next(iter(self._used.values())) >= VALID_MS:
            self._used.popitem(last=False)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
