"""Where everything of one demo run lives: addresses, ports, files, and the documents written into them."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from attestation.quantities import duration
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from proofbeat import documents
from proofbeat.demo import service
from proofbeat.demo.load import Flow
from xds.bootstrap import Bootstrap, envoy_bootstrap, write_bootstrap
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.resources.transport import Identities

APP_HTTP, APP_ECHO = 8080, 9090
IN_HTTP, IN_TCP = 8443, 8444
OUT_HTTP, OUT_FRESH, OUT_TCP = 7001, 7002, 7003


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds, and how many pages each service has. pages: files measured, besides the service itself.

    scraped: with a metrics socket each. otlp: a collector's address, or empty. delivery: whether each Envoy is
    delivered its secrets and filters, or everything. envoy_attested: whether it has to be attested as well before it
    gets an identity, which costs reading a hundred megabytes.

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

    def telemetry(self, socket: Path) -> dict[str, object]:
        """The part of a program's settings that says where its telemetry goes."""
        return {
            **({"listen": f"unix:{socket}"} if self.scraped else {}),
            **({"otlp": {"endpoint": self.otlp, "interval": "1s"}} if self.otlp else {}),
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One workload with its sidecar and Envoy. folder: of this side alone."""

    name: str
    address: str
    folder: Path
    spiffe_id: str

    @property
    def app(self) -> Path:
        """The workload's own folder: code and pages, all of it measured."""
        return self.folder / "app"

    @property
    def page(self) -> Path:
        return self.app / "pages" / "index.html"

    @property
    def xds(self) -> Path:
        return self.folder / "xds.sock"

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


@dataclass(frozen=True, slots=True)
class Layout:
    """A run's own trust domain and loopback addresses keep two demos at once apart."""

    folder: Path
    trust_domain: str
    web: Side
    db: Side
    authority: str
    terms: Terms

    @classmethod
    def make(cls, folder: Path, terms: Terms | None = None) -> Layout:
        trust_domain = f"demo-{secrets.token_hex(4)}.example"
        net = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        web, db = (
            Side(name, f"{net}.{number}", folder / name, f"spiffe://{trust_domain}/{name}")
            for number, name in ((11, "web"), (12, "db"))
        )
        return cls(folder, trust_domain, web, db, f"{net}.10:8443", terms or Terms())

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.web, self.db

    def peer(self, side: Side) -> Side:
        return self.web if side is self.db else self.db

    @property
    def authority_config(self) -> Path:
        return self.folder / "authority.yaml"

    @property
    def authority_admin(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def store(self) -> Path:
        """In a folder of its own, with everything else that the authority must not lose."""
        return self.folder / "store" / "authority.sqlite"

    @property
    def authority_metrics(self) -> Path:
        return self.folder / "metrics.sock"

    @property
    def bundle(self) -> Path:
        return self.folder / "ca" / "root.pem"


INTO_WEB, FROM_WEB = (0, 1, 2, 3), (4, 5, 6, 7)
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


def service_command(side: Side) -> list[str]:
    """The workload runs on the interpreter itself, not on the environment's link to it."""
    interpreter = str(Path(sys.executable).resolve())
    script = str(side.app / "service.py")
    return [interpreter, "-I", "-S", "-B", script, side.name, side.address, str(APP_HTTP), str(APP_ECHO)]


def policy(terms: Terms, side: Side) -> AttestationPolicy:
    spec = {
        "mode": "enforce",
        "interval": duration(terms.interval),
        "freshness": duration(terms.freshness),
        "deadman": duration(terms.deadman),
        "files": {"include": [str(side.app)]},
        **(_envoy_rules(terms) if terms.envoy_attested else {}),
    }
    return AttestationPolicy(metadata=Metadata(name=f"{side.name}-hardened"), spec=PolicySpec.model_validate(spec))


def _envoy_rules(terms: Terms) -> dict[str, object]:
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
    """policies/*.yaml: for each side a policy, its reference values and its registration."""
    folder = layout.folder / "policies"
    folder.mkdir()
    for side in layout.sides:
        ruled = policy(layout.terms, side)
        text = documents.governing(side.name, side.spiffe_id, ruled, taken[side.name])
        (folder / f"{side.name}.yaml").write_text(text)


def write_authority(layout: Layout, ca_name: str, lifetime: float) -> None:
    config = {
        "trustDomain": layout.trust_domain,
        "listen": layout.authority,
        "store": str(layout.store),
        "policies": ["policies"],
        "ca": {"folder": "ca", "name": ca_name, "lifetime": duration(lifetime)},
        "admin": layout.authority_admin.name,
        "telemetry": layout.terms.telemetry(layout.authority_metrics),
    }
    layout.authority_config.write_text(yaml.safe_dump(config, sort_keys=False))


def write_sidecar(layout: Layout, side: Side, pid: int, token: str) -> None:
    """A sidecar's settings for this run of its workload, and the token that enrols it."""
    side.token.touch(mode=0o600)
    side.token.write_text(token)
    config = {
        "trustDomain": layout.trust_domain,
        "authority": {"url": f"https://{layout.authority}", "bundle": str(layout.bundle)},
        "enrolment": {"joinTokenFile": str(side.token)},
        "workload": {"pid": pid},
        "delivery": _delivery(layout, side),
        "state": str(side.state),
        "telemetry": layout.terms.telemetry(side.metrics),
    }
    side.config.write_text(yaml.safe_dump(config, sort_keys=False))


def _delivery(layout: Layout, side: Side) -> dict[str, object]:
    settings: dict[str, object] = {"mode": layout.terms.delivery, "socket": str(side.xds)}
    if layout.terms.delivery == "xds":
        ports = service_of(layout, side)
        settings["service"] = {
            "bootstrap": str(side.bootstrap),
            "admin": str(side.admin),
            "accessLog": str(side.access_log),
            "inbound": [
                {
                    "listen": f"{each.listen.host}:{each.listen.port}",
                    "app": f"{each.app.host}:{each.app.port}",
                    "protocol": each.protocol,
                    "callers": list(each.callers.exact),
                }
                for each in ports.inbound
            ],
            "upstreams": [
                {
                    "name": each.name,
                    "listen": f"{each.listen.host}:{each.listen.port}",
                    "peers": [f"{peer.host}:{peer.port}" for peer in each.peers],
                    "protocol": each.protocol,
                    "identities": list(each.identities.exact),
                    "connectionPerRequest": each.connection_per_request,
                }
                for each in ports.upstreams
            ],
        }
    return settings


def service_of(layout: Layout, side: Side) -> Service:
    """Mutual TLS by SPIFFE ID both ways: only the peer may call, and only the peer is called."""
    peer = layout.peer(side)
    only_peer = Identities(exact=(peer.spiffe_id,))
    return Service(
        access_log=side.access_log,
        inbound=(
            Inbound(HostPort(side.address, IN_HTTP), HostPort(side.address, APP_HTTP), "http", only_peer),
            Inbound(HostPort(side.address, IN_TCP), HostPort(side.address, APP_ECHO), "tcp", only_peer),
        ),
        upstreams=(
            _upstream("kept", side, OUT_HTTP, peer, IN_HTTP, only_peer),
            _upstream("fresh", side, OUT_FRESH, peer, IN_HTTP, only_peer, fresh=True),
            _upstream("stream", side, OUT_TCP, peer, IN_TCP, only_peer, protocol="tcp"),
        ),
        max_connection_seconds=None,
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
        service=service_of(layout, side),
        before_first="refuse",
    )
    write_bootstrap(envoy_bootstrap(description), side.bootstrap)


def _upstream(
    name: str,
    side: Side,
    port: int,
    peer: Side,
    peer_port: int,
    identities: Identities,
    *,
    fresh: bool = False,
    protocol: str = "http",
) -> Upstream:
    return Upstream(
        name=f"{peer.name}-{name}",
        listen=HostPort(side.address, port),
        peers=(HostPort(peer.address, peer_port),),
        protocol="tcp" if protocol == "tcp" else "http",
        identities=identities,
        connection_per_request=fresh,
    )
