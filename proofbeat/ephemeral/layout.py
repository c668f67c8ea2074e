"""Where everything of one run lives: its own trust domain, addresses and files, and the settings among these."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import yaml

from attestation.quantities import duration
from authority.config import AuthorityConfig, CaConfig
from policies.model.dialect import Strict
from proofbeat.ephemeral.authority import CA_NAME
from sidecar.config import (
    AuthoritySettings,
    DeliverySettings,
    DetectorSettings,
    EnrolmentSettings,
    SidecarConfig,
    WorkloadSettings,
)
from sidecar.service import InboundSettings, ServiceSettings, UpstreamSettings
from telemetry.settings import TelemetrySettings

_AUTHORITY_PORT = 8443


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload, with its sidecar and Envoy. folder: of theirs alone."""

    name: str
    address: str
    folder: Path
    spiffe_id: str

    @property
    def xds(self) -> Path:
        return self.folder / "xds.sock"

    @property
    def detectors(self) -> Path:
        """Where its sidecar takes the alerts of somebody else's detectors."""
        return self.folder / "detectors.sock"

    @property
    def admin(self) -> Path:
        return self.folder / "envoy-admin.sock"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.sock"

    @property
    def access_log(self) -> Path:
        return self.folder / "access.log"

    @property
    def envoy_log(self) -> Path:
        return self.folder / "envoy.log"

    @property
    def bootstrap(self) -> Path:
        return self.folder / "envoy.json"

    @property
    def config(self) -> Path:
        return self.folder / "sidecar.yaml"

    @property
    def token(self) -> Path:
        return self.folder / "token"

    @property
    def state(self) -> Path:
        """The sidecar's own folder: ticket and latch."""
        return self.folder / "state"

    def service(self, inbound: tuple[InboundSettings, ...], upstreams: tuple[UpstreamSettings, ...]) -> ServiceSettings:
        """What its Envoy is for."""
        return ServiceSettings(
            bootstrap=self.bootstrap,
            admin=self.admin,
            access_log=self.access_log,
            log=self.envoy_log,
            inbound=inbound,
            upstreams=upstreams,
        )


@dataclass(frozen=True, slots=True)
class Domain:
    """A trust domain and loopback addresses of this run alone, which keep two runs at once apart. network: 127.x.y."""

    folder: Path
    trust_domain: str
    network: str

    @property
    def authority(self) -> str:
        return f"{self.address(10)}:{_AUTHORITY_PORT}"

    @property
    def authority_config(self) -> Path:
        return self.folder / "authority.yaml"

    @property
    def authority_admin(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def authority_metrics(self) -> Path:
        return self.folder / "metrics.sock"

    @property
    def store(self) -> Path:
        """In a folder of its own, with everything else that the authority must not lose."""
        return self.folder / "store" / "authority.sqlite"

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def bundle(self) -> Path:
        return self.folder / "ca" / "root.pem"

    def address(self, host: int) -> str:
        return f"{self.network}.{host}"

    def spiffe_id(self, name: str) -> str:
        return f"spiffe://{self.trust_domain}/{name}"

    def write_authority(self, ca_seconds: float, telemetry: TelemetrySettings) -> None:
        """ca_seconds: how long its throw-away CA lives."""
        ca = CaConfig.model_validate({"folder": self.bundle.parent, "name": CA_NAME, "lifetime": duration(ca_seconds)})
        config = AuthorityConfig(
            trust_domain=self.trust_domain,
            listen=self.authority,
            store=self.store,
            policies=(self.policies,),
            ca=ca,
            admin=self.authority_admin,
            telemetry=telemetry,
        )
        _write(self.authority_config, config)

    def write_sidecar(
        self,
        workload: Workload,
        pid: int,
        token: str,
        delivery: DeliverySettings,
        telemetry: TelemetrySettings,
    ) -> None:
        """Its settings for this run of its workload, and the token that enrols it."""
        workload.token.touch(mode=0o600)
        workload.token.write_text(token)
        config = SidecarConfig(
            trust_domain=self.trust_domain,
            authority=AuthoritySettings(url=f"https://{self.authority}", bundle=self.bundle),
            enrolment=EnrolmentSettings(join_token_file=workload.token),
            workload=WorkloadSettings(pid=pid),
            delivery=delivery,
            state=workload.state,
            detectors=DetectorSettings(socket=workload.detectors),
            telemetry=telemetry,
        )
        _write(workload.config, config)


def domain(folder: Path, kind: str) -> Domain:
    """One that no other run is likely to have. kind: what the run is, as its trust domain says."""
    network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
    return Domain(folder, f"{kind}-{secrets.token_hex(4)}.example", network)


def _write(file: Path, settings: Strict) -> None:
    said = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    file.write_text(yaml.safe_dump(said, sort_keys=False))
