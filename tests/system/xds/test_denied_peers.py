"""One instance of an identity that three share is denied as a peer; the other two are called on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.xds.denying import BY_SUBJECT, LEAVES, Scene, played, served, until_cut
from tests.system.xds.rig import PATIENCE, REFUSED, WORKERS_FOLLOW, Caller, Envoy, call_once, until_refused


def test_of_three_peers_the_denied_one_gets_no_request_any_more(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        await until_answering(at.proxy.outbound, {"0", "1", "2"})
        await at.deny(revoked=LEAVES[:1], without=at.peers[:1])
        await until_answering(at.proxy.outbound, {"1", "2"})
        assert await answering(at.proxy.outbound) == {"1", "2"}
        await at.deny(without=at.peers)
        await until_answering(at.proxy.outbound, {"503"})
        await at.deny()
        await until_answering(at.proxy.outbound, {"0", "1", "2"})

    played(tmp_path, story, peers=3)


def test_a_revoked_peer_is_called_by_no_new_connection(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        await at.deny(revoked=LEAVES[:1])
        await until_answering(at.proxy.outbound, {"503"})
        assert await at.proxy.stat("cluster.peer.ssl.fail_verify_error") > 0
        await at.proxy.until_logged(lambda entry: "revoked" in str(entry["upstream_failure"]))

    played(tmp_path, story, peers=1)


def test_an_open_tcp_connection_to_a_revoked_peer_ends_by_the_health_check(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        callers = [await Caller.connect(at.proxy.outbound) for _ in range(6)]
        held = {await answered(caller): caller for caller in callers}
        await at.deny(revoked=LEAVES[:1], without=at.peers[:1])
        with pytest.raises(REFUSED):
            await until_cut(held["0"])
        assert await answered(held["1"]) == "1"
        assert await answering(at.proxy.outbound) == {"1"}

    played(tmp_path, story, "tcp", peers=2, health_check=True)


def test_a_peer_that_is_healthy_but_denied_gets_nothing_new(tmp_path: Path) -> None:
    """Envoy would go on calling an endpoint that was removed for as long as its health check holds."""

    async def story(at: Scene) -> None:
        await until_answering(at.proxy.outbound, {"0", "1"})
        await at.deny(without=at.peers[:1])
        await until_answering(at.proxy.outbound, {"1"})
        await at.deny(without=at.peers)
        await until_answering(at.proxy.outbound, {"503"})

    played(tmp_path, story, peers=2, health_check=True)


def test_an_instance_that_is_denied_is_neither_called_nor_served(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        caller = await Caller.connect(at.proxy.inbound, at.contexts[0])
        assert (await caller.get()).status == 200
        await at.deny(BY_SUBJECT, revoked=LEAVES[:1], without=at.peers[:1])
        await caller.until_status(403)
        await until_refused(at.proxy.inbound, at.contexts[0])
        await until_answering(at.proxy.outbound, {"1", "2"})
        for context in at.contexts[1:]:
            assert (await call_once(at.proxy.inbound, context)).status == 200

    played(tmp_path, story, peers=3)


def test_a_changed_upstream_is_in_force_at_once(tmp_path: Path) -> None:
    """A changed cluster waits for its endpoints, which have not changed: they must be sent again."""

    async def story(at: Scene) -> None:
        assert (await call_once(at.proxy.outbound)).status == 200
        upstream = replace(at.service.upstreams[0], connection_per_request=True)
        await at.publish(served(replace(at.service, upstreams=(upstream,))))
        async with asyncio.timeout(WORKERS_FOLLOW):
            while await handshakes(at.proxy, 2) < 2:
                pass

    played(tmp_path, story)


async def handshakes(proxy: Envoy, calls: int) -> int:
    """How many it takes to be answered so often."""
    before = await proxy.stat("cluster.peer.ssl.handshake")
    for _ in range(calls):
        await call_once(proxy.outbound)
    return await proxy.stat("cluster.peer.ssl.handshake") - before


async def answering(port: int) -> set[str]:
    """Who answers, of many calls."""
    answers = [await call_once(port) for _ in range(12)]
    return {answer.body.decode() if answer.status == 200 else str(answer.status) for answer in answers}


async def until_answering(port: int, wanted: set[str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await answering(port) != wanted:
            pass


async def answered(caller: Caller) -> str:
    return (await caller.get()).body.decode()
