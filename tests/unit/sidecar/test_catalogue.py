"""What Envoy is served open, opening and closed, in both modes."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.instance import InstanceId
from sidecar.config import DeliverySettings
from sidecar.delivery import poison
from sidecar.delivery.resources import Catalogue, Identity
from sidecar.denials import Refusals
from sidecar.service import InboundSettings, ServiceSettings, UpstreamSettings
from wire.messages import Denials, Denied, DeniedLeaf
from xds.resources.ecds import EXTENSION_CONFIG_TYPE
from xds.resources.mesh import CLUSTER_TYPE, ENDPOINTS_TYPE, LISTENER_TYPE, ROUTES_TYPE
from xds.resources.secrets import SECRET_TYPE
from xds.snapshot import Snapshot

PEERS = ("spiffe://example.org/db",)
SERVICE = ServiceSettings(
    bootstrap=Path("envoy.json"),
    admin=Path("admin.sock"),
    access_log=Path("access.log"),
    inbound=(
        InboundSettings(listen="127.0.0.1:1", app="127.0.0.1:2", callers=PEERS),
        InboundSettings(listen="127.0.0.1:3", app="127.0.0.1:4", protocol="tcp", callers=PEERS),
    ),
    upstreams=(UpstreamSettings(name="db", listen="127.0.0.1:5", peers=("127.0.0.1:6",), identities=PEERS),),
)
POISON = poison.make(0.0)
IDENTITY = Identity(POISON.chain, POISON.key, POISON.bundle)
SDS = Catalogue.under(DeliverySettings(socket=Path("xds.sock")), ttl=2.0)
XDS = Catalogue.under(DeliverySettings(socket=Path("xds.sock"), mode="xds", service=SERVICE), ttl=2.0)


def types(snapshot: Snapshot) -> set[str]:
    return set(snapshot.by_type)


DENIED = Denied(
    InstanceId("i-" + "0" * 32),
    PEERS[0],
    "c-0",
    (DeniedLeaf(b"\x01", "0" * 64, 0),),
    ("127.0.0.1:6",),
)
REFUSALS = Refusals.of(Denials(3, (DENIED,), b"a CRL"))


def test_an_envoy_of_somebody_elses_gets_secrets_and_filters_only() -> None:
    for snapshot in (SDS.opened(IDENTITY, 2.0), SDS.opening(IDENTITY, "r"), SDS.closed(POISON, "r")):
        assert types(snapshot) == {SECRET_TYPE, EXTENSION_CONFIG_TYPE}


def test_listeners_are_served_while_open_and_at_no_other_time() -> None:
    assert set(XDS.opened(IDENTITY, 2.0).table(LISTENER_TYPE)) == {"inbound-1", "inbound-3", "outbound-db"}
    assert LISTENER_TYPE not in types(XDS.opening(IDENTITY, "r"))
    assert LISTENER_TYPE not in types(XDS.closed(POISON, "r"))


def test_what_carries_traffic_or_lets_it_pass_ends_by_itself() -> None:
    opened = XDS.opened(IDENTITY, 2.0)
    for kind in (LISTENER_TYPE, EXTENSION_CONFIG_TYPE):
        assert {each.ttl for each in opened.table(kind).values()} == {2.0}


@pytest.mark.parametrize("kind", [CLUSTER_TYPE, ENDPOINTS_TYPE, ROUTES_TYPE])
def test_what_stands_does_not_change_by_opening_and_closing(kind: str) -> None:
    assert XDS.opened(IDENTITY, 2.0).version(kind) == XDS.closed(POISON, "r").version(kind) != ""


def test_a_renewed_lease_leaves_every_listener_as_it_is() -> None:
    renewed = poison.make(1.0)
    other = XDS.opened(Identity(renewed.chain, renewed.key, renewed.bundle), 2.0)
    assert other.version(LISTENER_TYPE) == XDS.opened(IDENTITY, 2.0).version(LISTENER_TYPE)
    assert other.version(SECRET_TYPE) != XDS.opened(IDENTITY, 2.0).version(SECRET_TYPE)


def test_what_drains_keeps_its_listeners_as_they_were_and_lets_nothing_new_in() -> None:
    opened, draining = XDS.opened(IDENTITY, 1.5), XDS.draining(POISON, "r", 1.5)
    assert draining.version(LISTENER_TYPE) == opened.version(LISTENER_TYPE) != ""
    closed = XDS.closed(POISON, "r")
    for kind in (SECRET_TYPE, EXTENSION_CONFIG_TYPE):
        assert draining.version(kind) == closed.version(kind)


def test_a_shorter_life_changes_a_listeners_lifetime_and_nothing_in_it() -> None:
    longer, shorter = (XDS.opened(IDENTITY, ttl).table(LISTENER_TYPE) for ttl in (2.0, 0.25))
    assert {each.ttl for each in shorter.values()} == {0.25}
    assert {name: each.body for name, each in shorter.items()} == {name: each.body for name, each in longer.items()}


def refusing(catalogue: Catalogue) -> Catalogue:
    return Catalogue.under(catalogue.settings, 2.0, REFUSALS)


def bodies(snapshot: Snapshot, kind: str) -> bytes:
    return b"".join(each.body for each in snapshot.table(kind).values())


@pytest.mark.parametrize("catalogue", [SDS, XDS], ids=["sds", "xds"])
def test_who_is_refused_is_in_the_filters_and_in_the_crl_while_it_is_open(catalogue: Catalogue) -> None:
    opened = refusing(catalogue).opened(IDENTITY, 2.0)
    assert REFUSALS.http.body in bodies(opened, EXTENSION_CONFIG_TYPE)
    assert REFUSALS.tcp.body in bodies(opened, EXTENSION_CONFIG_TYPE)
    for snapshot in (opened, refusing(catalogue).opening(IDENTITY, "r")):
        assert b"a CRL" in bodies(snapshot, SECRET_TYPE)
    assert b"a CRL" not in bodies(catalogue.opened(IDENTITY, 2.0), SECRET_TYPE)


@pytest.mark.parametrize("catalogue", [SDS, XDS], ids=["sds", "xds"])
def test_who_is_refused_changes_nothing_of_being_closed(catalogue: Catalogue) -> None:
    before, after = (each.closed(POISON, "r") for each in (catalogue, refusing(catalogue)))
    for kind in (SECRET_TYPE, EXTENSION_CONFIG_TYPE):
        assert after.version(kind) == before.version(kind)


def test_a_denied_peer_loses_its_endpoint_and_everything_else_stands() -> None:
    before, after = (each.opened(IDENTITY, 2.0) for each in (XDS, refusing(XDS)))
    assert b"127.0.0.1" in bodies(before, ENDPOINTS_TYPE)
    assert b"127.0.0.1" not in bodies(after, ENDPOINTS_TYPE)
    for kind in (LISTENER_TYPE, CLUSTER_TYPE, ROUTES_TYPE):
        assert after.version(kind) == before.version(kind)
