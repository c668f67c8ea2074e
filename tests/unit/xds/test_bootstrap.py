"""The bootstrap says what safety depends on. That Envoy takes it is for the system tests."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from xds.bootstrap import Bootstrap, envoy_bootstrap, envoy_command, write_bootstrap
from xds.errors import BootstrapError
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.resources.transport import Identities

ANY = HostPort("127.0.0.1", 1)
CALLERS = Identities(exact=("spiffe://example.org/a",), prefixes=("spiffe://example.org/ns/",))
PEER = Identities(exact=("spiffe://example.org/b",))
SERVICE = Service(
    access_log=Path("/run/access.log"),
    inbound=(Inbound(ANY, ANY, "http", CALLERS), Inbound(HostPort("127.0.0.1", 2), ANY, "tcp", CALLERS)),
    upstreams=(
        Upstream("web", ANY, (ANY,), "http", PEER, connection_per_request=True),
        Upstream("db", ANY, (ANY,), "tcp", PEER),
    ),
    max_connection_seconds=300,
)
DESCRIPTION = Bootstrap(
    node_id="n",
    node_cluster="c",
    xds_socket=Path("/run/xds.sock"),
    admin_socket=Path("/run/admin.sock"),
    service=SERVICE,
)


def objects(node: object) -> Iterator[dict[str, object]]:
    """Every JSON object, at any depth."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def having(key: str, description: Bootstrap = DESCRIPTION) -> list[object]:
    """The values of a key, wherever it is."""
    return [found[key] for found in objects(envoy_bootstrap(description)) if key in found]


def test_every_config_source_is_the_same_to_the_byte() -> None:
    sources = having("sds_config") + having("config_source")
    # Four mutual TLS contexts with two secrets each, and four chains with a filter each.
    assert len(sources) == 4 * 2 + 4
    assert len({json.dumps(source) for source in sources}) == 1


def test_no_aggregated_source_is_used_since_envoy_crashes_on_it() -> None:
    assert having("ads") == []


def test_reconnecting_is_quick() -> None:
    for backoff in having("retry_back_off"):
        assert backoff == {"base_interval": "0.02s", "max_interval": "0.2s"}


def test_no_session_is_resumed_in_either_direction() -> None:
    assert having("disable_stateless_session_resumption") == [True, True]
    assert having("disable_stateful_session_resumption") == [True, True]
    assert having("max_session_keys") == [0, 0]


def test_tls_is_1_3_and_clients_need_certificates() -> None:
    assert having("tls_minimum_protocol_version") == ["TLSv1_3"] * 4
    assert having("require_client_certificate") == [True, True]


def test_each_direction_checks_its_own_names() -> None:
    exact = {"san_type": "URI", "matcher": {"exact": "spiffe://example.org/a"}}
    prefix = {"san_type": "URI", "matcher": {"prefix": "spiffe://example.org/ns/"}}
    peer = {"san_type": "URI", "matcher": {"exact": "spiffe://example.org/b"}}
    assert having("match_typed_subject_alt_names") == [[exact, prefix]] * 2 + [[peer]] * 2


def test_every_chain_denies_by_default_without_waiting() -> None:
    assert having("apply_default_config_without_warming") == [True] * 4
    for default in having("default_config"):
        assert isinstance(default, dict)
        assert default["rules"]["action"] == "DENY"
        assert list(default["rules"]["policies"]) == ["no-fresh-attestation"]


def test_silence_waits_for_ever_and_refusing_does_not() -> None:
    assert set(map(str, having("initial_fetch_timeout"))) == {"0s"}
    refusing = replace(DESCRIPTION, before_first="refuse", refuse_after_seconds=0.5)
    assert set(map(str, having("initial_fetch_timeout", refusing))) == {"0.5s"}


def test_connections_are_capped_where_asked() -> None:
    # Three: callers' and local HTTP connections, and those to the HTTP upstream; two: TCP in and out.
    assert having("max_connection_duration") == ["300s"] * 3
    assert having("max_downstream_connection_duration") == ["300s"] * 2
    assert (
        having("max_connection_duration", replace(DESCRIPTION, service=replace(SERVICE, max_connection_seconds=None)))
        == []
    )


def test_a_connection_per_request_is_for_the_upstream_that_asks() -> None:
    assert having("max_requests_per_connection") == [1]


def test_nobody_named_is_refused_since_envoy_would_take_anybody() -> None:
    nobody = Identities()
    with pytest.raises(BootstrapError, match="inbound port 1: nobody is named"):
        replace(SERVICE, inbound=(Inbound(ANY, ANY, "http", nobody),))
    with pytest.raises(BootstrapError, match="upstream 'web'"):
        replace(SERVICE, upstreams=(Upstream("web", ANY, (ANY,), "http", nobody),))


def test_an_upstream_name_used_twice_is_refused() -> None:
    with pytest.raises(BootstrapError, match="used twice"):
        replace(SERVICE, upstreams=SERVICE.upstreams * 2)


def test_the_file_is_for_its_owner_only_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    write_bootstrap(envoy_bootstrap(DESCRIPTION), path)
    assert json.loads(path.read_text()) == envoy_bootstrap(DESCRIPTION)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["envoy.json"]


def test_the_command_cuts_instead_of_draining_and_keeps_envoys_apart() -> None:
    command = envoy_command("envoy", Path("/c"), concurrency=1)
    assert command[command.index("--drain-time-s") + 1] == "0"
    assert command[command.index("--concurrency") + 1] == "1"
    assert "--use-dynamic-base-id" in command
    numbered = envoy_command("envoy", Path("/c"), base_id=7)
    assert numbered[numbered.index("--base-id") + 1] == "7"
    assert "--use-dynamic-base-id" not in numbered
    alone = envoy_command("envoy", Path("/c"), hot_restart=False)
    assert "--disable-hot-restart" in alone
    assert not {"--use-dynamic-base-id", "--base-id"} & set(alone)
