"""The sidecar's settings, and the mistakes people make in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.errors import InvalidConfiguration
from sidecar.config import SidecarConfig, load
from sidecar.peers import MOST_RANGES
from xds.resources.transport import SecretNames

TEXT = """\
trustDomain: example.org
authority: {url: https://127.0.0.1:8443, bundle: bundle.pem}
enrolment: {joinTokenFile: token}
workload: {pid: 4242, files: {include: [/srv/app]}}
measurer: {placement: pod}
delivery: {mode: sds, socket: run/xds.sock, allow: {uids: [1337]}}
state: state
"""


def read(folder: Path, text: str, environment: dict[str, str] | None = None) -> SidecarConfig:
    file = folder / "sidecar.yaml"
    file.write_text(text)
    return load(file, environment or {})


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT)
    assert config.workload.pid == 4242
    assert config.delivery.allow.uids == (1337,)


def test_the_nodes_measurer_is_roots_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT.replace("placement: pod", "placement: node, socket: /run/m.sock"))
    assert (config.measurer.socket, config.measurer.uid) == (Path("/run/m.sock"), 0)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT, {"PROOFBEAT_AUTHORITY_URL": "https://a:1", "PROOFBEAT_WORKLOAD_PID": "7"})
    assert (config.authority.url, config.workload.pid) == ("https://a:1", 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("joinTokenFile", "joinTokenFle"), "'joinTokenFile'"),
        (("https://", "http://"), "never travel in the clear"),
        (("pid: 4242", "pid: 0"), "workload.pid"),
        (("example.org", "Example.Org"), "is not a trust domain"),
        (("state: state\n", ""), "state"),
        (("mode: sds", "mode: carrier-pigeon"), "delivery.mode"),
        (("placement: pod", "placement: node"), "where the node's measurer listens"),
        (("placement: pod", "placement: pod, socket: m.sock"), "where the node's measurer listens"),
    ],
)
def test_each_mistake_names_its_place_and_its_mending(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        read(tmp_path, TEXT.replace(*change))
    assert words in raised.value.sentence
    assert "sidecar.yaml" in raised.value.sentence


SERVICE = """{bootstrap: envoy.json, admin: admin.sock, accessLog: access.log,
  inbound: [{listen: "0.0.0.0:8443", app: "127.0.0.1:8080", callers: [spiffe://example.org/db]}],
  upstreams: [{name: db, listen: "127.0.0.1:7001", peers: ["[::1]:8443", "10.0.0.2:8443"], identities: [spiffe://example.org/db]}]}"""

UPSTREAM = SERVICE[SERVICE.index("{name") : -2]
TWICE = SERVICE.replace(UPSTREAM, f"{UPSTREAM}, {UPSTREAM}")


def delivered(service: str, mode: str = "xds") -> str:
    return TEXT.replace("mode: sds,", f"mode: {mode}, service: {service},")


def test_a_service_is_described_in_a_few_lines(tmp_path: Path) -> None:
    settings = read(tmp_path, delivered(SERVICE)).delivery.service
    assert settings is not None
    service = settings.described(SecretNames())
    (inbound,), (upstream,) = service.inbound, service.upstreams
    assert (inbound.listen.port, inbound.app.host, inbound.protocol) == (8443, "127.0.0.1", "http")
    assert service.max_connection_seconds is None
    capped = read(tmp_path, delivered(SERVICE.replace("{bootstrap", "{maxConnection: 1h, bootstrap"))).delivery.service
    assert capped is not None
    assert capped.described(SecretNames()).max_connection_seconds == 3600
    assert inbound.callers.exact == ("spiffe://example.org/db",)
    assert [(peer.host, peer.port) for peer in upstream.peers] == [("::1", 8443), ("10.0.0.2", 8443)]


def test_peers_reach_what_listens_at_one_address_or_what_is_named(tmp_path: Path) -> None:
    def reached(text: str) -> tuple[str, ...]:
        return read(tmp_path, text).delivery.addresses

    somewhere = SERVICE.replace("0.0.0.0:8443", "[2001:DB8::7]:8443")
    assert reached(TEXT) == ()
    assert reached(delivered(SERVICE)) == ()
    assert reached(delivered(somewhere)) == ("[2001:db8::7]:8443",)
    named = "mode: xds, reachedAt: ['192.0.2.7:9443', '[2001:db8:0::8]:1'],"
    assert reached(delivered(somewhere).replace("mode: xds,", named)) == ("192.0.2.7:9443", "[2001:db8::8]:1")
    assert reached(TEXT.replace("mode: sds,", "mode: sds, reachedAt: ['192.0.2.7:9443'],")) == ("192.0.2.7:9443",)
    with pytest.raises(InvalidConfiguration, match="nobody can connect"):
        reached(TEXT.replace("mode: sds,", "mode: sds, reachedAt: ['0.0.0.0:9443'],"))


def among(*peers: str) -> str:
    return TEXT.replace("mode: sds,", f"mode: sds, peers: {list(peers)},")


def test_nothing_is_cut_of_somebody_elses_envoy_but_where_it_is_named(tmp_path: Path) -> None:
    named = ("192.0.2.7:9443", "192.0.2.0/24:9443", "192.0.2.0/24", "[2001:db8::7]:9443", "2001:db8::/64")
    assert read(tmp_path, TEXT).delivery.peers == ()
    assert read(tmp_path, among(*named)).delivery.peers == named


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("192.0.2.7", "neither an address with its port nor a network"),
        ("2001:db8::7:9443", "neither an address with its port nor a network"),
        ("192.0.2.7:70000", "neither an address with its port nor a network"),
        ("[fe80::1%eth0]:9443", "neither an address with its port nor a network"),
        ("192.0.2.7/24", "host bits"),
        ("db:9443", "does not appear to be"),
        ("192.0.2.7:0", "neither"),
        ("::ffff:192.0.2.0/120", "IPv4 addresses"),
    ],
)
def test_what_names_no_peer_or_could_be_meant_otherwise_is_refused_where_it_stands(
    tmp_path: Path, text: str, why: str
) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        read(tmp_path, among("192.0.2.8:9443", text))
    assert why in refused.value.sentence
    assert "sidecar.yaml:" in refused.value.sentence
    assert "Written like 192.0.2.7:9443" in refused.value.sentence


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (delivered(SERVICE, "sds"), "mode xds"),
        (among(*(f"192.0.2.7:{port}" for port in range(1, MOST_RANGES + 2))), "at most 64"),
        (delivered(SERVICE).replace("mode: xds,", "mode: xds, peers: ['192.0.2.7:9443'],"), "those of the upstreams"),
        (TEXT.replace("mode: sds", "mode: xds"), "mode xds"),
        (delivered(SERVICE.replace("127.0.0.1:8080", "localhost:8080")), "an IP address and a port"),
        (delivered(SERVICE.replace("0.0.0.0:8443", "0.0.0.0:70000")), "an IP address and a port"),
        (delivered(SERVICE.replace("callers: [spiffe://example.org/db]", "callers: []")), "callers"),
        (delivered(SERVICE.replace("[spiffe://example.org/db]}]}", "[db]}]}")), "identities"),
        (delivered(SERVICE.replace("name: db", "name: d b")), "name"),
        (delivered(SERVICE.replace("10.0.0.2:8443", "[::1]:8443")), "an address is named twice"),
        (delivered(TWICE), "used twice"),
        (delivered(SERVICE).replace("mode: xds,", "mode: xds, httpFilters: [mine],"), "leave out their names"),
    ],
)
def test_a_service_that_cannot_be_meant_is_refused_where_it_stands(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        read(tmp_path, text)
    assert named in refused.value.sentence
    assert "sidecar.yaml:" in refused.value.sentence
