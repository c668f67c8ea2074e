"""Fresh nonces for instances; nothing is remembered of them but the last number."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from attestation import nonce
from authority.instances import Instances
from authority.keyring import Keyring
from authority.rules import Ruling
from authority.store.records import Enrolled
from wire.messages import Nonce


class Nonces:
    """clock: Unix seconds."""

    def __init__(self, instances: Instances, keyring: Keyring, clock: Callable[[], float]) -> None:
        self._instances = instances
        self._keyring = keyring
        self._clock = clock

    def issue(self, enrolled: Enrolled, ruling: Ruling) -> Nonce:
        now_ms = int(self._clock() * 1000)
        sequence = self._instances.next_sequence(enrolled, now_ms)
        value = nonce.issue(
            self._keyring.nonce_key,
            nonce.holder(enrolled.instance, enrolled.thumbprint),
            sequence=sequence,
            issued_ms=now_ms,
            epoch=self._keyring.epoch,
            random=secrets.token_bytes(nonce.RANDOM_SIZE),
        )
        return Nonce(value, sequence, now_ms, ruling.nonce_valid_ms, enrolled.full_required)
