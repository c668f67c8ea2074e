"""A real Envoy asks for a certificate at the handshake that needs it, and gets it, or the word that there is none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.system.xds.pki import Authority
from tests.system.xds.rig import ENVOY, LOCALHOST, PATIENCE, Events, free_port, make_server
from xds.bootstrap import delivered_bootstrap, envoy_command, write_bootstrap
from xds.resources.secrets import SECRET_TYPE, tls_certificate
from xds.resources.transport import Json, aggregated_source
from xds.server import Server
from xds.snapshot import Resource, Snapshot

AT_ONCE = 1.0
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls."
_FILTERS = "type.googleapis.com/envoy.extensions.filters."
OK = b"HTTP/1.1 200"
AUTHORITY = Authority("mesh")
REFUSED = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)


def certificate(name: str) -> Resource:
    leaf = AUTHORITY.leaf(f"spiffe://example.org/{name}")
    return tls_certificate(name, leaf.chain_pem, leaf.key_pem)


def listener(port: int) -> Json:
    """It answers everything, by the certificate whose name the caller asks for."""
    selector: Json = {
        "@type": _TLS + "cert_selectors.on_demand_secret.v3.Config",
        "config_source": aggregated_source(),
        "certificate_mapper": {
            "name": "sni",
            "typed_config": {"@type": _TLS + "cert_mappers.sni.v3.SNI", "default_value": "default"},
        },
    }
    context: Json = {
        "@type": _TLS + "v3.DownstreamTlsContext",
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": {"custom_tls_certificate_selector": {"name": "selector", "typed_config": selector}},
    }
    everything: Json = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    answer: Json = {
        "@type": _FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "on-demand",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": _FILTERS + "http.router.v3.Router"}}],
    }
    chain: Json = {
        "filters": [{"name": "answer", "typed_config": answer}],
        "transport_socket": {"name": "tls", "typed_config": context},
    }
    address = {"socket_address": {"address": LOCALHOST, "port_value": port}}
    return {"name": "on-demand", "address": address, "filter_chains": [chain]}


@asynccontextmanager
async def proxy(folder: Path) -> AsyncIterator[int]:
    """An Envoy with that listener; gives its port."""
    port = free_port()
    bootstrap = delivered_bootstrap("test", "test", folder / "xds.sock", folder / "admin.sock")
    static = bootstrap["static_resources"]
    assert isinstance(static, dict)
    config = folder / "envoy.json"
    write_bootstrap({**bootstrap, "static_resources": {**static, "listeners": [listener(port)]}}, config)
    with (folder / "envoy.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *envoy_command(ENVOY, config, concurrency=1), stdout=log, stderr=log
        )
    try:
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def call(port: int, name: str) -> bytes:
    """Handshake for `name` and read the answer. Raises one of REFUSED where it is."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(LOCALHOST, port, ssl=trusting, server_hostname=name)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        return await reader.readexactly(len(OK))
    finally:
        writer.close()


async def bound(port: int) -> None:
    """Nothing tells that a listener is bound."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection(LOCALHOST, port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


def played(folder: Path, story: Callable[[Server, int], Awaitable[None]], first: Snapshot) -> None:
    async def scenario() -> None:
        async with make_server(folder / "xds.sock", Events()) as server:
            server.publish(first)
            async with proxy(folder) as port:
                await bound(port)
                await story(server, port)

    asyncio.run(scenario())


def test_where_absence_is_final_a_handshake_for_what_there_is_not_is_refused_at_once(tmp_path: Path) -> None:
    async def story(server: Server, port: int) -> None:
        assert await call(port, "known") == OK
        for _ in range(2):
            with pytest.raises(REFUSED):
                async with asyncio.timeout(AT_ONCE):
                    await call(port, "unknown")
        server.publish(server.snapshot.replacing(certificate("unknown")))
        assert await call(port, "unknown") == OK

    played(tmp_path, story, Snapshot.of(certificate("known"), complete=[SECRET_TYPE]))


def test_where_it_is_not_the_handshake_waits_for_the_certificate(tmp_path: Path) -> None:
    async def story(server: Server, port: int) -> None:
        assert await call(port, "known") == OK
        waiting = asyncio.gather(call(port, "unknown"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(AT_ONCE):
                await asyncio.shield(waiting)
        server.publish(server.snapshot.replacing(certificate("unknown")))
        (answer,) = await waiting
        assert answer == OK

    played(tmp_path, story, Snapshot.of(certificate("known")))


def test_a_certificate_that_is_taken_away_refuses_the_next_handshake(tmp_path: Path) -> None:
    async def story(server: Server, port: int) -> None:
        assert await call(port, "known") == OK
        gone = server.publish(Snapshot.of(complete=[SECRET_TYPE]))
        assert (await gone.acknowledged(PATIENCE)).in_force
        with pytest.raises(REFUSED):
            async with asyncio.timeout(AT_ONCE):
                await call(port, "known")

    played(tmp_path, story, Snapshot.of(certificate("known"), complete=[SECRET_TYPE]))
