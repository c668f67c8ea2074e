"""A real Envoy gets its certificate and its trusted authorities from our server."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.system.xds.pki import Authority, client_context
from tests.system.xds.rig import (
    SPIFFE_ID,
    Answer,
    Events,
    application,
    call_once,
    describe,
    envoy,
    make_server,
)
from xds.resources.ecds import extension_config
from xds.resources.rbac import http_allow_all
from xds.resources.secrets import tls_certificate, validation_context
from xds.snapshot import Resource, Snapshot

REFUSED = (OSError, asyncio.IncompleteReadError, ssl.SSLError)


def identity(authority: Authority, uri: str = SPIFFE_ID) -> tuple[Resource, Resource]:
    leaf = authority.leaf(uri)
    return (
        tls_certificate("default", leaf.chain_pem, leaf.key_pem),
        validation_context("ROOTCA", authority.bundle_pem),
    )


def open_filters() -> tuple[Resource, Resource]:
    return (
        extension_config("rbac-inbound-http", http_allow_all()),
        extension_config("rbac-outbound-http", http_allow_all()),
    )


def test_with_its_secrets_envoy_serves_and_calls_by_mutual_tls(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*identity(authority), *open_filters()))
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                caller = client_context(authority.leaf(SPIFFE_ID), authority.bundle_pem, tmp_path)
                assert await call_once(proxy.inbound, caller) == Answer(200, b"ok")
                assert await call_once(proxy.outbound) == Answer(200, b"ok")

    asyncio.run(scenario())


def test_a_caller_whose_name_is_not_listed_is_refused_and_logged(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*identity(authority), *open_filters()))
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                stranger = authority.leaf("spiffe://example.org/stranger")
                with pytest.raises(REFUSED):
                    await call_once(proxy.inbound, client_context(stranger, authority.bundle_pem, tmp_path))
                entry = await proxy.until_logged(
                    lambda entry: entry["event"] == "connection" and entry["downstream_failure"] is not None
                )
                assert "CERTIFICATE_VERIFY_FAILED" in str(entry["downstream_failure"])

    asyncio.run(scenario())


def test_a_swapped_certificate_and_authority_refuse_new_handshakes_until_swapped_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        good = Snapshot.of(*identity(authority), *open_filters())
        poison = Snapshot.of(*identity(Authority("nobody")), *open_filters())
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(good)
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                caller = client_context(authority.leaf(SPIFFE_ID), authority.bundle_pem, tmp_path)
                assert (await call_once(proxy.inbound, caller)).status == 200

                swapped = await server.publish(poison).acknowledged(5)
                assert swapped.in_force
                assert {name for v in swapped.accepted for name in v.resources} == {"default", "ROOTCA"}
                with pytest.raises(REFUSED):
                    await call_once(proxy.inbound, caller)

                assert (await server.publish(good).acknowledged(5)).in_force
                assert (await call_once(proxy.inbound, caller)).status == 200

    asyncio.run(scenario())


def test_a_certificate_envoy_cannot_use_is_reported_as_rejected_with_its_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        certificate, bundle = identity(authority)
        broken = tls_certificate("default", b"not a certificate", b"not a key")
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(certificate, bundle, *open_filters()))
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                publication = server.publish(server.snapshot.replacing(broken))
                heard: list[str] = []
                publication.on_rejected(lambda verdict: heard.append(verdict.reason))
                settlement = await publication.acknowledged(5)
                assert not settlement.in_force
                (rejected,) = settlement.rejected
                assert rejected.resources == ("default",)
                assert "certificate" in rejected.reason
                assert heard == [rejected.reason]

                again = server.publish(server.snapshot)
                assert not again.settlement().in_force, "the same content is still refused"
                mended = await server.publish(server.snapshot.replacing(certificate)).acknowledged(5)
                assert mended.in_force

    asyncio.run(scenario())


def test_before_the_first_snapshot_a_silent_envoy_binds_no_port(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        async with (
            application() as app,
            make_server(tmp_path / "xds.sock", events) as server,
            envoy(describe(tmp_path, app), tmp_path) as proxy,
        ):
            await proxy.until_answering()
            with pytest.raises(OSError):
                await call_once(proxy.inbound)
            server.publish(Snapshot.of(*identity(authority), *open_filters()))
            await proxy.until_ready()
            assert (await call_once(proxy.outbound)).status == 200

    asyncio.run(scenario())


def test_each_request_makes_a_handshake_where_that_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*identity(authority), *open_filters()))
            description = describe(tmp_path, app, connection_per_request=True)
            async with envoy(description, tmp_path) as proxy:
                await proxy.until_ready()
                for _ in range(3):
                    assert (await call_once(proxy.outbound)).status == 200
                assert await proxy.stat("cluster.peer.ssl.handshake") == 3
                assert await proxy.stat("cluster.peer.ssl.session_reused") == 0

    asyncio.run(scenario())


def test_a_refusing_envoy_goes_live_without_secrets_and_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        async with (
            application() as app,
            make_server(tmp_path / "xds.sock", events) as server,
            envoy(describe(tmp_path, app, before_first="refuse"), tmp_path) as proxy,
        ):
            await proxy.until_ready()
            caller = client_context(authority.leaf(SPIFFE_ID), authority.bundle_pem, tmp_path)
            with pytest.raises(REFUSED):
                await call_once(proxy.inbound, caller)
            assert (await server.publish(Snapshot.of(*identity(authority))).acknowledged(5)).in_force
            assert (await call_once(proxy.inbound, caller)).status == 403, "a filter is still missing"

    asyncio.run(scenario())


def test_an_envoy_that_speaks_the_state_of_the_world_protocol_is_served_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, events = Authority("mesh"), Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*identity(authority), *open_filters()))
            async with envoy(describe(tmp_path, app), tmp_path, api_type="GRPC") as proxy:
                await proxy.until_ready()
                assert (await call_once(proxy.outbound)).status == 200
                poison = server.snapshot.replacing(*identity(Authority("nobody")))
                swapped = await server.publish(poison).acknowledged(5)
                assert swapped.in_force
                assert {n for v in swapped.accepted for n in v.resources} == {"default", "ROOTCA"}
                caller = client_context(authority.leaf(SPIFFE_ID), authority.bundle_pem, tmp_path)
                with pytest.raises(REFUSED):
                    await call_once(proxy.inbound, caller)
                broken = server.snapshot.replacing(tls_certificate("default", b"no", b"no"))
                refused = await server.publish(broken).acknowledged(5)
                assert [v.resources for v in refused.rejected] == [("default",)]

    asyncio.run(scenario())
