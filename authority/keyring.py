"""The secrets behind nonces and tickets. They outlive a restart, so that what was handed out before stays good."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from attestation import nonce, strictjson
from attestation.errors import InvalidConfiguration, InvalidInput


@dataclass(frozen=True, slots=True)
class Keyring:
    """epoch: of these keys; a nonce made under another one does not count. New keys mean a new epoch."""

    epoch: int
    nonce_key: bytes
    ticket_key: bytes

    def ticket(self, *parts: bytes) -> bytes:
        """32 bytes that only this authority can make of these parts."""
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.new(self.ticket_key, b"proofbeat/ticket\0" + message, hashlib.sha256).digest()


def opened(path: Path, *, now: float) -> Keyring:
    """The keyring in a file, which is made with mode 0600 where there is none.

    now: Unix seconds; the first epoch. Raises InvalidConfiguration when the file is damaged, or others can read it.
    """
    if not path.exists():
        _write(path, Keyring(int(now) & 0xFFFFFFFF, secrets.token_bytes(nonce.KEY_SIZE), secrets.token_bytes(32)))
    mend = "Remove it to start a new epoch; every sidecar then enrols again with a join token."
    if path.stat().st_mode & 0o077:
        raise InvalidConfiguration("others can read these secrets", where=str(path), mend=f"chmod 600 {path}")
    try:
        fields = strictjson.loads(path.read_bytes())
        keys = bytes.fromhex(fields["nonce"]), bytes.fromhex(fields["ticket"])
        keyring = Keyring(fields["epoch"], *keys)
    except (OSError, ValueError, KeyError, TypeError, InvalidInput) as error:
        raise InvalidConfiguration("the secrets do not parse", where=str(path), mend=mend) from error
    if type(keyring.epoch) is not int or not 0 <= keyring.epoch < 1 << 32:
        raise InvalidConfiguration("the epoch is not a number of 32 bits", where=str(path), mend=mend)
    if [len(key) for key in keys] != [nonce.KEY_SIZE, 32]:
        raise InvalidConfiguration("the secrets are of another length", where=str(path), mend=mend)
    return keyring


def _write(path: Path, keyring: Keyring) -> None:
    """All or nothing: a half-written file must never be taken for an empty one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    text = json.dumps({"epoch": keyring.epoch, "nonce": keyring.nonce_key.hex(), "ticket": keyring.ticket_key.hex()})
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
