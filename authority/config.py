"""The authority's settings, from YAML."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from attestation.errors import InvalidConfiguration, InvalidInput
from attestation.spiffe import SpiffeId
from policies.model import dialect
from policies.model.dialect import Duration, Strict
from policies.model.metadata import NAME
from policies.model.selection import ROOT_NAMESPACE
from telemetry.settings import TelemetrySettings

_MOST_PORT = 65_535
_HOST = r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$"
LEAST_TOKEN = 32
"""Bytes of a detector's token."""


def _trust_domain(text: str) -> str:
    try:
        SpiffeId(text)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error
    return text


class CaConfig(Strict):
    """folder: where root, intermediate and result keys lie. They are made there, under `name`, when it is empty.

    lifetime: of a root made so.
    """

    folder: Path
    name: str = Field(default="Proofbeat", min_length=1, max_length=48)
    lifetime: Duration = 3650 * 86400.0


class HistoryConfig(Strict):
    """keep: how long history answers `proofbeat why` about states that are over; of one instance at most 500 moments.

    What quarantines is kept for ever, whatever its age. retire_after: without session, lease and goodbye for that
    long, an instance counts as gone.
    """

    keep: Duration = 30 * 86400.0
    retire_after: Duration = 600.0


class ReferencesConfig(Strict):
    """trusted_keys: files with public keys, PEM. Reference values have to be signed by one of them, and to
    expire; see `proofbeat references sign`. None: nobody has to have signed them.
    """

    trusted_keys: tuple[Path, ...] | None = Field(default=None, min_length=1)

    def below(self, base: Path) -> ReferencesConfig:
        """Relative paths count from this folder."""
        named = self.trusted_keys
        return ReferencesConfig(trusted_keys=None if named is None else tuple(base / each for each in named))


class DetectorsConfig(Strict):
    """Detectors of somebody else's, which post their alerts to `/v1/alerts`. token_files: each with a secret of one.

    hosts: names and addresses of this authority in the URLs that they post to. Its certificate has these as well, for
    a detector's client checks them and knows no SPIFFE ID. oldest: after which an alert is about the past, and nobody
    is told.
    """

    token_files: tuple[Path, ...] = Field(min_length=1, max_length=64)
    hosts: tuple[Annotated[str, Field(pattern=_HOST)], ...] = Field(default=(), max_length=16)
    oldest: Duration = 60.0

    def below(self, base: Path) -> DetectorsConfig:
        """Relative paths count from this folder."""
        return self.model_copy(update={"token_files": tuple(base / each for each in self.token_files)})

    def tokens(self) -> tuple[bytes, ...]:
        """SHA-256 of each. Raises InvalidConfiguration for a file that cannot be read, or is guessed too easily."""
        return tuple(map(_hashed, self.token_files))


def _hashed(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise InvalidConfiguration(
            f"the token cannot be read: {error.strerror}", where=str(path), mend="Check `detectors.tokenFiles`."
        ) from error
    if len(token) < LEAST_TOKEN:
        raise InvalidConfiguration(
            f"a token of {len(token)} bytes, where {LEAST_TOKEN} are the least",
            where=str(path),
            mend="`openssl rand -hex 32` makes one.",
        )
    return hashlib.sha256(token).digest()


class AuthorityConfig(Strict):
    """listen: host:port, port 0 for any. store: the SQLite file. policies: files, or folders of *.yaml.

    root_namespace: policies in it are for every namespace: a floor that none of theirs loosens.
    admin: path of the admin socket, made with mode 0600.
    """

    trust_domain: Annotated[str, AfterValidator(_trust_domain)]
    listen: str = Field(default="127.0.0.1:8443", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")
    store: Path
    policies: tuple[Path, ...] = Field(min_length=1)
    root_namespace: str = Field(default=ROOT_NAMESPACE, pattern=NAME)
    ca: CaConfig
    admin: Path
    references: ReferencesConfig = ReferencesConfig()
    telemetry: TelemetrySettings = TelemetrySettings()
    history: HistoryConfig = HistoryConfig()
    detectors: DetectorsConfig | None = None

    @field_validator("listen")
    @classmethod
    def _known_port(cls, listen: str) -> str:
        if int(listen.rpartition(":")[2]) > _MOST_PORT:
            raise ValueError(f"a port is a number up to {_MOST_PORT}")
        return listen

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def load(path: Path) -> AuthorityConfig:
    """Relative paths count from the file's folder. Raises InvalidConfiguration with its place in the file."""
    config = dialect.read(path, AuthorityConfig)
    base = path.parent
    return config.model_copy(
        update={
            "store": base / config.store,
            "policies": tuple(base / each for each in config.policies),
            "ca": config.ca.model_copy(update={"folder": base / config.ca.folder}),
            "admin": base / config.admin,
            "references": config.references.below(base),
            "telemetry": config.telemetry.below(base),
            "detectors": None if config.detectors is None else config.detectors.below(base),
        }
    )
