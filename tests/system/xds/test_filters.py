"""RBAC filters delivered to a real Envoy: allowed, denied with a reason, and denied when nobody prolongs them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.xds.pki import Authority
from tests.system.xds.rig import (
    SPIFFE_ID,
    WORKERS_FOLLOW,
    Caller,
    Events,
    application,
    call_once,
    describe,
    envoy,
    make_server,
)
from xds.resources.ecds import extension_config
from xds.resources.rbac import TypedConfig, http_allow_all, http_deny_all, tcp_allow_all, tcp_deny_all
from xds.resources.secrets import tls_certificate, validation_context
from xds.snapshot import Resource, Snapshot

TTL = 1.0
CLOSED = (ConnectionError, asyncio.IncompleteReadError)
FILTERS = ("rbac-inbound-http", "rbac-outbound-http")


def secrets(authority: Authority) -> tuple[Resource, Resource]:
    leaf = authority.leaf(SPIFFE_ID)
    return (
        tls_certificate("default", leaf.chain_pem, leaf.key_pem),
        validation_context("ROOTCA", authority.bundle_pem),
    )


def filters(config: TypedConfig, ttl: float | None = None) -> tuple[Resource, ...]:
    return tuple(extension_config(name, config, ttl=ttl) for name in FILTERS)


def test_a_denial_turns_an_open_connection_to_403_and_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        events = Events()
        identity = secrets(Authority("mesh"))
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*identity, *filters(http_allow_all())))
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                caller = await Caller.connect(proxy.outbound)
                await caller.until_status(200)

                denied = server.publish(Snapshot.of(*identity, *filters(http_deny_all("file changed: /bin/x"))))
                assert (await denied.acknowledged(5)).in_force
                await caller.until_status(403)
                details = "rbac_access_denied_matched_policy[file-changed:-/bin/x]"
                await proxy.until_logged(lambda entry: entry["details"] == details)

                allowed = server.publish(Snapshot.of(*identity, *filters(http_allow_all())))
                assert (await allowed.acknowledged(5)).in_force
                await caller.until_status(200)
                await caller.close()

    asyncio.run(scenario())


def test_until_a_filter_is_delivered_everything_is_denied(tmp_path: Path) -> None:
    async def scenario() -> None:
        events = Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*secrets(Authority("mesh"))))
            async with envoy(describe(tmp_path, app, deny_reason="nothing-delivered"), tmp_path) as proxy:
                await proxy.until_ready()
                caller = await Caller.connect(proxy.outbound)
                assert (await caller.get()).status == 403
                details = "rbac_access_denied_matched_policy[nothing-delivered]"
                await proxy.until_logged(lambda entry: entry["details"] == details)
                await caller.close()

    asyncio.run(scenario())


def test_without_heartbeats_a_filter_with_a_lifetime_denies_and_heartbeats_keep_it_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        events = Events()
        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            allowed = Snapshot.of(*secrets(Authority("mesh")), *filters(http_allow_all(), TTL))
            server.publish(allowed)
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                beats = Heartbeats(server.heartbeat)
                await proxy.until_ready()
                caller = await Caller.connect(proxy.outbound)
                await caller.until_status(200)

                open_until = time.monotonic() + 2.5 * TTL
                while time.monotonic() < open_until:
                    assert (await caller.get()).status == 200
                    await asyncio.sleep(TTL / 10)

                last = beats.stop()
                while (await caller.get()).status == 200:
                    assert time.monotonic() - last < 3 * TTL, "it must not stay open without heartbeats"
                    await asyncio.sleep(TTL / 100)
                assert time.monotonic() - last >= 0.9 * TTL

                answered = len(events.verdicts)
                assert server.heartbeat() == len(FILTERS), "after the end a heartbeat in full opens again"
                await events.until(lambda events: len(events.verdicts) == answered + len(FILTERS))
                await caller.until_status(200)
                await caller.close()

    asyncio.run(scenario())


def test_a_denial_closes_new_tcp_connections_and_until_a_filter_comes_all_are_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        events = Events()
        identity = secrets(Authority("mesh"))

        def tcp(config: TypedConfig) -> Snapshot:
            names = ("rbac-inbound-tcp", "rbac-outbound-tcp")
            return Snapshot.of(*identity, *(extension_config(name, config) for name in names))

        async with application() as app, make_server(tmp_path / "xds.sock", events) as server:
            server.publish(Snapshot.of(*identity))
            async with envoy(describe(tmp_path, app, protocol="tcp"), tmp_path) as proxy:
                await proxy.until_ready()
                with pytest.raises(CLOSED):
                    await call_once(proxy.outbound)
                assert (await server.publish(tcp(tcp_allow_all())).acknowledged(5)).in_force
                await until_served(proxy.outbound, True)
                assert (await server.publish(tcp(tcp_deny_all("tcp-denied"))).acknowledged(5)).in_force
                await until_served(proxy.outbound, False)
                await proxy.until_logged(lambda entry: "tcp-denied" in str(entry["termination"]))

    asyncio.run(scenario())


def test_whoever_is_refused_reads_the_reason_in_a_problem_document_and_an_applications_403_passes(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        identity = secrets(Authority("mesh"))
        async with application(403) as app, make_server(tmp_path / "xds.sock", Events()) as server:
            server.publish(Snapshot.of(*identity, *filters(http_deny_all("file-modified:c-0123"))))
            async with envoy(describe(tmp_path, app), tmp_path) as proxy:
                await proxy.until_ready()
                caller = await Caller.connect(proxy.outbound)
                answer = await caller.until_answer(lambda answer: b"c-0123" in answer.body)
                assert (answer.status, answer.content_type) == (403, "application/problem+json")
                assert json.loads(answer.body) == {
                    "type": "about:blank",
                    "title": "Forbidden",
                    "status": 403,
                    "detail": "rbac_access_denied_matched_policy[file-modified:c-0123]",
                }
                server.publish(Snapshot.of(*identity, *filters(http_allow_all())))
                answer = await caller.until_answer(lambda answer: answer.content_type == "")
                assert (answer.status, answer.body) == (403, b"ok")
                await caller.close()

    asyncio.run(scenario())


async def until_served(port: int, served: bool) -> None:
    """An acknowledgement comes from Envoy's main thread; its workers follow within moments."""
    async with asyncio.timeout(WORKERS_FOLLOW):
        while await answers(port) is not served:
            pass


async def answers(port: int) -> bool:
    try:
        return (await call_once(port)).status == 200
    except CLOSED:
        return False


class Heartbeats:
    """A healthy caller, until it is stopped."""

    def __init__(self, beat: Callable[[], int]) -> None:
        self._beat = beat
        self._last = time.monotonic()
        self._again()

    def _again(self) -> None:
        self._beat()
        self._last = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(TTL / 4, self._again)

    def stop(self) -> float:
        self._timer.cancel()
        return self._last
