"""The demo's two workloads: their ports and pages, the traffic between them, and what rules them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from attestation.quantities import duration
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Demand, PolicySpec, RecoveryRules
from policies.model.references import ReferenceValues
from proofbeat import documents
from proofbeat.demo import service
from proofbeat.demo.load import Flow
from proofbeat.demo.users import User, users
from proofbeat.ephemeral.layout import Domain, Workload, domain
from sidecar.config import DeliverySettings
from sidecar.service import InboundSettings, ServiceSettings, UpstreamSettings
from telemetry.settings import TelemetrySettings
from xds.bootstrap import Bootstrap, envoy_bootstrap, write_bootstrap
from xds.resources.service import Application
from xds.resources.transport import SecretNames

APP_HTTP, APP_ECHO = 8080, 9090
IN_HTTP, IN_TCP = 8443, 8444
OUT_HTTP, OUT_FRESH, OUT_TCP = 7001, 7002, 7003


SIDES = ("web", "db")


@dataclass(frozen=True, slots=True)
class Floor:
    """A policy beside the demo's own. name: as it was told. text: its documents."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds, and how many pages each service has. pages: files measured, besides the service itself.

    scraped: with a metrics socket each. otlp: a collector's address, or empty. delivery: whether each Envoy is
    delivered its secrets and filters, or everything. envoy_attested: whether it has to be attested as well before it
    gets an identity, which costs reading a hundred megabytes. recovery: what opens traffic again. floor: what else
    rules both services; each of them runs as a user of its own then, if root runs the demo. stated: what the demo's own
    policies say besides, as a policy's spec has it; of files without what is included. calls: those that both services
    may make, in sets as reference values have them; none where nobody asks.

    Shorter times than the presets', so that a minute shows everything; the dead-man time suits a busy laptop.
    """

    interval: float = 1.0
    freshness: float = 20.0
    deadman: float = 2.0
    pages: int = 24
    scraped: bool = True
    otlp: str = ""
    delivery: Literal["sds", "xds"] = "sds"
    envoy_attested: bool = False
    recovery: RecoveryRules = field(default_factory=RecoveryRules)
    floor: Floor | None = None
    stated: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    calls: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def telemetry(self, socket: Path) -> TelemetrySettings:
        """The part of a program's settings that says where its telemetry goes."""
        listen = {"listen": f"unix:{socket}"} if self.scraped else {}
        otlp = {"otlp": {"endpoint": self.otlp, "interval": "1s"}} if self.otlp else {}
        return TelemetrySettings.model_validate({**listen, **otlp})


@dataclass(frozen=True, slots=True)
class Side(Workload):
    """One of the two. user: whom its service runs as; None for us."""

    user: User | None = None

    @property
    def app(self) -> Path:
        """The workload's own folder: code and pages, all of it measured."""
        return self.folder / "app"

    @property
    def page(self) -> Path:
        return self.app / "pages" / "index.html"


@dataclass(frozen=True, slots=True)
class Layout(Domain):
    """A trust domain with two workloads that call each other."""

    web: Side
    db: Side
    terms: Terms

    @classmethod
    def make(cls, folder: Path, terms: Terms | None = None) -> Layout:
        """Raises Unavailable where the services cannot be given users of their own, and need them."""
        of_this_run, terms = domain(folder, "demo"), terms or Terms()
        apart = users(len(SIDES)) if terms.floor and os.geteuid() == 0 else (None, None)
        web, db = (
            Side(name, of_this_run.address(host), folder / name, of_this_run.spiffe_id(name), user)
            for host, name, user in zip((11, 12), SIDES, apart, strict=True)
        )
        return cls(folder, of_this_run.trust_domain, of_this_run.network, web, db, terms)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.web, self.db

    def peer(self, side: Side) -> Side:
        return self.web if side is self.db else self.db


INTO_WEB, FROM_WEB = (0, 1, 2, 3), (4, 5, 6, 7)
ALL_FLOWS = (*INTO_WEB, *FROM_WEB)
FRESH = (1, 5)
STREAMS, NEW_STREAMS = (2, 6), (3, 7)
"""Numbers of the flows below, by direction and by kind."""


def flows(layout: Layout) -> list[Flow]:
    """Traffic in both directions: kept-alive HTTP, a handshake a request, one long TCP stream, new TCP streams."""
    found = []
    for caller, callee in ((layout.db, layout.web), (layout.web, layout.db)):
        way = f"{caller.name} to {callee.name}"
        found += [
            Flow(f"{way}, kept-alive HTTP", "http", caller.address, OUT_HTTP),
            Flow(f"{way}, new HTTP connections", "http", caller.address, OUT_FRESH),
            Flow(f"{way}, one long TCP stream", "tcp", caller.address, OUT_TCP),
            Flow(f"{way}, new TCP streams", "tcp", caller.address, OUT_TCP, fresh=True),
        ]
    return found


def write_apps(layout: Layout) -> None:
    """Each side's own copy of the service, with pages to serve."""
    for side in layout.sides:
        pages = side.app / "pages"
        pages.mkdir(parents=True)
        shutil.copy(service.__file__, side.app / "service.py")
        side.page.write_text(f"<h1>{side.name}</h1>\n")
        for number in range(layout.terms.pages):
            (pages / f"page-{number}.html").write_text(f"<p>{side.name}, page {number}</p>\n" * 20)
        if side.user is not None:
            side.user.give(side.app)
            for folder in (layout.folder, side.folder):
                side.user.admit(folder)


def service_command(side: Side) -> list[str]:
    """The workload runs on the interpreter itself, not on the environment's link to it."""
    interpreter = side.user.python if side.user else str(Path(sys.executable).resolve())
    script = str(side.app / "service.py")
    command = [interpreter, "-I", "-S", "-B", script, side.name, side.address, str(APP_HTTP), str(APP_ECHO)]
    return side.user.running(command) if side.user else command


def policy(terms: Terms, name: str, app: str) -> AttestationPolicy:
    """The demo's own for one side."""
    rules = _envoy_rules(terms) if terms.envoy_attested else {}
    spec = {
        **terms.stated,
        "mode": "enforce",
        "interval": duration(terms.interval),
        "freshness": duration(terms.freshness),
        "deadman": duration(terms.deadman),
        "files": {**terms.stated.get("files", {}), "include": [app]},
        **rules,
        "layers": {**rules.get("layers", {}), **_calls(terms), **terms.stated.get("layers", {})},
    }
    return AttestationPolicy(metadata=Metadata(name=f"{name}-hardened"), spec=PolicySpec.model_validate(spec))


def _calls(terms: Terms) -> dict[str, Any]:
    """Where nobody may bring programs into the kernel, nobody misses them."""
    return {"syscalls": {"demand": Demand.BEST_EFFORT}} if terms.calls else {}


def _envoy_rules(terms: Terms) -> dict[str, Any]:
    """An ordinary user's measurer cannot read the program of an Envoy that is execute-only."""
    return {
        "layers": {"files": {}, "processes": {}, "proxy": {}},
        "proxy": {
            "requireReferenced": os.geteuid() == 0,
            "requireDrainNow": True,
            "requireDenyFilters": True,
            "requireResumptionOff": terms.delivery == "xds",
        },
    }


def write_policies(layout: Layout, taken: dict[str, ReferenceValues]) -> None:
    """For each side a policy, its reference values and its registration; and what the demo was told to run under."""
    layout.policies.mkdir()
    if layout.terms.floor is not None:
        (layout.policies / "floor.yaml").write_text(layout.terms.floor.text)
    for side in layout.sides:
        ruled = policy(layout.terms, side.name, str(side.app))
        values = taken[side.name]
        if layout.terms.calls:
            sets = {"syscalls": dict(layout.terms.calls)}
            values = values.model_copy(update={"spec": values.spec.model_copy(update=sets)})
        text = documents.governing(side.name, side.spiffe_id, ruled, values)
        (layout.policies / f"{side.name}.yaml").write_text(text)


def write_authority(layout: Layout, ca_seconds: float) -> None:
    layout.write_authority(ca_seconds, layout.terms.telemetry(layout.authority_metrics))


def write_sidecar(layout: Layout, side: Side, pid: int, token: str) -> None:
    """A sidecar's settings for this run of its workload, and the token that enrols it."""
    layout.write_sidecar(side, pid, token, _delivery(layout, side), layout.terms.telemetry(side.metrics))


def _delivery(layout: Layout, side: Side) -> DeliverySettings:
    if layout.terms.delivery == "xds":
        return DeliverySettings(mode="xds", socket=side.xds, service=service_of(layout, side))
    peer = layout.peer(side).address
    return DeliverySettings(mode="sds", socket=side.xds, peers=(f"{peer}:{IN_HTTP}", f"{peer}:{IN_TCP}"))


def service_of(layout: Layout, side: Side) -> ServiceSettings:
    """Mutual TLS by SPIFFE ID both ways: only the peer may call, and only the peer is called."""
    peer = layout.peer(side)
    return side.service(
        inbound=(
            _inbound(side, IN_HTTP, APP_HTTP, peer, "http"),
            _inbound(side, IN_TCP, APP_ECHO, peer, "tcp"),
        ),
        upstreams=(
            _upstream("kept", side, OUT_HTTP, peer, IN_HTTP),
            _upstream("fresh", side, OUT_FRESH, peer, IN_HTTP, fresh=True),
            _upstream("stream", side, OUT_TCP, peer, IN_TCP, protocol="tcp"),
        ),
    )


def write_envoy(layout: Layout, side: Side) -> None:
    """The bootstrap of an Envoy that is delivered secrets and filters; the sidecar writes the other kind itself."""
    if layout.terms.delivery == "xds":
        return
    description = Bootstrap(
        node_id=f"{side.name}-{layout.trust_domain}",
        node_cluster=side.name,
        xds_socket=side.xds,
        admin_socket=side.admin,
        service=service_of(layout, side).described(SecretNames()),
        before_first="refuse",
    )
    write_bootstrap(envoy_bootstrap(description), side.bootstrap)


def _inbound(side: Side, port: int, app: int, peer: Side, protocol: Application) -> InboundSettings:
    return InboundSettings(
        listen=f"{side.address}:{port}", app=f"{side.address}:{app}", protocol=protocol, callers=(peer.spiffe_id,)
    )


def _upstream(
    name: str,
    side: Side,
    port: int,
    peer: Side,
    peer_port: int,
    *,
    fresh: bool = False,
    protocol: Application = "http",
) -> UpstreamSettings:
    return UpstreamSettings(
        name=f"{peer.name}-{name}",
        listen=f"{side.address}:{port}",
        peers=(f"{peer.address}:{peer_port}",),
        protocol=protocol,
        identities=(peer.spiffe_id,),
        connection_per_request=fresh,
    )
