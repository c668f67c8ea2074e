"""Where everything of one `proofbeat up` lives, and what is written for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policies.author.learning.learned import Learned
from policies.author.learning.outcome import references, rules
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from proofbeat import documents
from proofbeat.ephemeral.layout import Domain, Workload, domain
from proofbeat.up import intruding
from proofbeat.up.listening import Port
from sidecar.config import DeliverySettings
from sidecar.service import InboundSettings, ServiceSettings, UpstreamSettings
from telemetry.settings import TelemetrySettings
from xds.resources.service import Application

NAME = "app"
CA_SECONDS = 24 * 3600.0
_PEERS, _CALLS = 8443, 7000


@dataclass(frozen=True, slots=True)
class Layout(Domain):
    """A trust domain with one workload. calls: where the service is called, in plaintext."""

    workload: Workload
    calls: str
    protocol: Application

    @classmethod
    def make(cls, folder: Path, protocol: Application, calls: str | None) -> Layout:
        made = domain(folder, "up")
        workload = Workload(NAME, made.address(11), folder / NAME, made.spiffe_id(NAME))
        return cls(folder, made.trust_domain, made.network, workload, calls or f"{made.address(1)}:{_CALLS}", protocol)

    @property
    def url(self) -> str:
        """How the service is called through its mesh of one."""
        return f"http://{self.calls}/" if self.protocol == "http" else self.calls

    @property
    def policy(self) -> Path:
        return self.policies / f"{NAME}.yaml"

    def write_policy(self, learned: Learned, *, intruded: bool, notified: bool) -> None:
        """What was learned, enforced. intruded: as the acts of an intruder need it, who is there for a minute.

        notified: it was started under a filter that asks.
        """
        times = {"interval": "2s", "freshness": "20s", "deadman": "3s"}
        said, values = rules(learned, notified=notified), references(NAME, learned)
        if intruded:
            said = intruding.rules(said, learned)
            values = values.model_copy(update={"spec": intruding.allowed(values.spec)})
        spec = PolicySpec.model_validate({"mode": "enforce", **times, **said})
        policy = AttestationPolicy(metadata=Metadata(name="learned"), spec=spec)
        self.policies.mkdir(exist_ok=True)
        governing = documents.governing(NAME, self.workload.spiffe_id, policy, values)
        self.policy.write_text(governing)

    def write_settings(self, pid: int, token: str, port: Port) -> None:
        """The sidecar's, for this run of the workload."""
        self.workload.folder.mkdir(exist_ok=True)
        delivery = DeliverySettings(mode="xds", socket=self.workload.xds, service=self._service(port))
        self.write_sidecar(self.workload, pid, token, delivery, TelemetrySettings())

    def _service(self, port: Port) -> ServiceSettings:
        """It calls itself: out through a plaintext port, in through mutual TLS, to where it listens."""
        peers, identity = f"{self.workload.address}:{_PEERS}", (self.workload.spiffe_id,)
        inbound = InboundSettings(listen=peers, app=str(port), protocol=self.protocol, callers=identity)
        upstream = UpstreamSettings(
            name=NAME, listen=self.calls, peers=(peers,), protocol=self.protocol, identities=identity
        )
        return self.workload.service((inbound,), (upstream,))
