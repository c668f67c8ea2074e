"""The sidecar's settings: YAML, `PROOFBEAT_*` overrides, secrets by file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from attestation import addresses
from attestation.errors import InvalidInput
from attestation.spiffe import SpiffeId
from policies.model import dialect
from policies.model.dialect import Duration, Strict
from policies.model.references import ReferenceDigest
from sidecar.peers import MOST_RANGES, Range
from sidecar.service import Address, ServiceSettings, host_port
from telemetry.settings import TelemetrySettings
from wire.messages import MOST_ADDRESSES


class AuthoritySettings(Strict):
    """url: https only. bundle: PEM file of the roots that the authority's certificate must chain to."""

    url: str
    bundle: Path

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("an https:// address is needed: evidence and certificates never travel in the clear")
        return url.rstrip("/")


class EnrolmentSettings(Strict):
    join_token_file: Path


class FileSettings(Strict):
    """Widens what the signed policy measures; it can never narrow it."""

    include: tuple[str, ...] = ()


class WorkloadSettings(Strict):
    """pid: the workload's first process, looked up once at start. cgroup: its cgroup; empty for the process tree."""

    pid: int = Field(gt=0)
    cgroup: str = ""
    files: FileSettings = FileSettings()


class MeasurerSettings(Strict):
    """placement: pod, where the sidecar starts a measurer of its own, or node, where it calls the node's.

    socket, uid: for node, and for it alone: where that listens, and whose process it has to be.
    """

    placement: Literal["pod", "node"] = "pod"
    socket: Path | None = None
    uid: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _socket_where_it_is_called(self) -> Self:
        if (self.placement == "node") != (self.socket is not None):
            raise ValueError("`socket` says where the node's measurer listens, with `placement: node` and only then")
        return self


class AllowSettings(Strict):
    """Who may connect to a socket of ours. uids: users whose process may; empty means the sidecar's own.

    executables: digests of the programs that may, as sha256sum prints them; empty means any.
    """

    uids: tuple[int, ...] = ()
    executables: tuple[ReferenceDigest, ...] = ()


def _reached(text: str) -> str:
    """In the one form that peers compare. Raises InvalidInput for what nobody can connect to."""
    where = host_port(text)
    return addresses.address(where.host, where.port)


def _valid(text: str) -> str:
    try:
        return _reached(text)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error


Reached = Annotated[Address, AfterValidator(_valid)]


def _peer(text: str) -> str:
    try:
        Range.parse(text)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error
    return text


class DeliverySettings(Strict):
    """mode: sds delivers secrets and filters to an Envoy that is somebody else's to configure, xds all of it.

    before_first_lease: refuse serves poison at once (Envoy live and refusing); silent keeps Envoy initialising.
    service: for mode xds, and for it alone. reached_at: where peers reach our Envoy, so that they can be told not to
    call it any more; by default where it listens, as far as that is one address. peers: for mode sds, and for it alone:
    where peers listen, as 192.0.2.7:9443 or 192.0.2.0/24:9443. What Envoy has open to a denied one is cut only there:
    where that listens is its own word, so name no address at which anything else does.
    """

    mode: Literal["sds", "xds"] = "sds"
    service: ServiceSettings | None = None
    socket: Path
    socket_mode: int = 0o600
    allow: AllowSettings = AllowSettings()
    before_first_lease: Literal["silent", "refuse"] = "refuse"
    certificate: str = "default"
    validation: str = "ROOTCA"
    http_filters: tuple[str, ...] = ("rbac-inbound-http", "rbac-outbound-http")
    tcp_filters: tuple[str, ...] = ("rbac-inbound-tcp", "rbac-outbound-tcp")
    reached_at: tuple[Reached, ...] = Field(default=(), max_length=MOST_ADDRESSES)
    peers: tuple[Annotated[str, AfterValidator(_peer)], ...] = Field(default=(), max_length=MOST_RANGES)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where peers reach our Envoy, as far as anybody knows; each once, MOST_ADDRESSES of them."""
        if self.reached_at:
            return self.reached_at
        found: set[str] = set()
        for each in self.service.inbound if self.service is not None else ():
            with suppress(InvalidInput):  # it listens on every address, and only its owner knows which one peers use
                found.add(_reached(each.listen))
        return tuple(sorted(found))[:MOST_ADDRESSES]

    @model_validator(mode="after")
    def _service_where_it_is_delivered(self) -> Self:
        if (self.mode == "xds") != (self.service is not None):
            raise ValueError("`service` says what Envoy is delivered in mode xds, and nothing in mode sds")
        if self.mode == "xds" and {"http_filters", "tcp_filters"} & self.model_fields_set:
            raise ValueError("in mode xds the filters are those of our own listeners: leave out their names")
        if self.mode == "xds" and self.peers:
            raise ValueError("in mode xds the peers are those of the upstreams: leave out `delivery.peers`")
        return self


class ForensicsSettings(Strict):
    """How much a forensic bundle may cost this machine; whether one is taken at all is policy's (`spec.containment`).

    most_bytes: of what is collected of the workload. keep: bundles; the oldest give way, and 0 takes none. within: the
    time that collecting may take, which is also what a kill waits for it. apart: the least time between two.
    """

    most_bytes: int = Field(default=4 << 20, ge=64 << 10, le=64 << 20)
    keep: int = Field(default=8, ge=0, le=1000)
    within: Annotated[Duration, Field(gt=0.0, le=60.0)] = 3.0
    apart: Duration = 60.0


class KnownAs(Strict):
    """What detectors call the workload, where its control group does not say so, or not to us.

    container: its id. pod_uid, namespace, pod: of its pod, as the downward API tells. node: of its machine, as Falco's
    `hostname` and Tetragon's `node_name` have it.
    """

    container: str = Field(default="", pattern=r"^([0-9a-f]{12,64})?$")
    pod_uid: str = Field(default="", max_length=64)
    namespace: str = Field(default="", max_length=253)
    pod: str = Field(default="", max_length=253)
    node: str = Field(default="", max_length=253)


class DetectorSettings(Strict):
    """Detectors of somebody else's (docs/detectors.md). What their alerts come to is policy's (`spec.detectors`).

    socket: where they are listened to, besides those that the authority passes on. oldest: after which an alert is
    about the past, and changes nothing.
    """

    socket: Path | None = None
    socket_mode: int = 0o600
    allow: AllowSettings = AllowSettings()
    oldest: Annotated[Duration, Field(ge=1.0, le=3600.0)] = 60.0
    known_as: KnownAs = KnownAs()


class SidecarConfig(Strict):
    """state: folder of the sidecar's own, for the re-entry ticket and the tamper latch.

    operators: file with what a policy's `spec.breakGlass` says, YAML. What lets this workload through has to satisfy it
    too: then not even an authority that makes up policies can break the glass.
    """

    trust_domain: str
    authority: AuthoritySettings
    enrolment: EnrolmentSettings
    workload: WorkloadSettings
    measurer: MeasurerSettings = MeasurerSettings()
    delivery: DeliverySettings
    state: Path
    operators: Path | None = None
    forensics: ForensicsSettings = ForensicsSettings()
    detectors: DetectorSettings = DetectorSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _known_trust_domain(self) -> Self:
        try:
            SpiffeId(self.trust_domain)
        except InvalidInput as error:
            raise ValueError(error.sentence) from error
        return self


def load(path: Path, environment: Mapping[str, str] | None = None) -> SidecarConfig:
    """Raises InvalidConfiguration naming file, line and the nearest known key."""
    return dialect.read(path, SidecarConfig, os.environ if environment is None else environment)
