"""RBAC filters delivered to a real Envoy: allowed, denied with a reason, and denied when nobody prolongs them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.xds.rig import REFUSED, Caller, call_once, until_refused, until_served
from tests.system.xds.sds import Scene, filters, identity, played
from xds.resources.rbac import http_deny_all, tcp_allow_all, tcp_deny_all

TTL = 1.0


def test_a_denial_turns_an_open_connection_to_403_and_says_why(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        caller = await Caller.connect(at.proxy.outbound)
        await caller.until_status(200)
        assert (await at.replace(*filters(http_deny_all("file changed: /bin/x")))).in_force
        await caller.until_status(403)
        details = "rbac_access_denied_matched_policy[file-changed:-/bin/x]"
        await at.proxy.until_logged(lambda entry: entry["details"] == details)
        assert (await at.replace(*filters())).in_force
        await caller.until_status(200)
        await caller.close()

    played(tmp_path, story, *identity(), *filters())


def test_until_a_filter_is_delivered_everything_is_denied(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        caller = await Caller.connect(at.proxy.outbound)
        assert (await caller.get()).status == 403
        details = "rbac_access_denied_matched_policy[nothing-delivered]"
        await at.proxy.until_logged(lambda entry: entry["details"] == details)
        await caller.close()

    played(tmp_path, story, *identity(), deny_reason="nothing-delivered")


def test_without_heartbeats_a_filter_with_a_lifetime_denies_and_heartbeats_keep_it_open(tmp_path: Path) -> None:
    mortal = filters(ttl=TTL)

    async def story(at: Scene) -> None:
        beats = Heartbeats(at.server.heartbeat)
        await at.proxy.until_ready()
        caller = await Caller.connect(at.proxy.outbound)
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

        answered = len(at.events.verdicts)
        assert at.server.heartbeat() == len(mortal), "after the end a heartbeat in full opens again"
        await at.events.until(lambda events: len(events.verdicts) == answered + len(mortal))
        await caller.until_status(200)
        await caller.close()

    played(tmp_path, story, *identity(), *mortal, ready=False)


def test_a_denial_closes_new_tcp_connections_and_until_a_filter_comes_all_are_closed(tmp_path: Path) -> None:
    own = identity()

    async def story(at: Scene) -> None:
        with pytest.raises(REFUSED):
            await call_once(at.proxy.outbound)
        assert (await at.publish(*own, *filters(tcp_allow_all(), kind="tcp"))).in_force
        await until_served(at.proxy.outbound)
        assert (await at.replace(*filters(tcp_deny_all("tcp-denied"), kind="tcp"))).in_force
        await until_refused(at.proxy.outbound)
        await at.proxy.until_logged(lambda entry: "tcp-denied" in str(entry["termination"]))

    played(tmp_path, story, *own, protocol="tcp")


def test_whoever_is_refused_reads_the_reason_in_a_problem_document_and_an_applications_403_passes(
    tmp_path: Path,
) -> None:
    async def story(at: Scene) -> None:
        caller = await Caller.connect(at.proxy.outbound)
        answer = await caller.until_answer(lambda answer: b"c-0123" in answer.body)
        assert (answer.status, answer.content_type) == (403, "application/problem+json")
        assert json.loads(answer.body) == {
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "detail": "rbac_access_denied_matched_policy[file-modified:c-0123]",
        }
        assert (await at.replace(*filters())).in_force
        answer = await caller.until_answer(lambda answer: answer.content_type == "")
        assert (answer.status, answer.body) == (403, b"ok")
        await caller.close()

    played(tmp_path, story, *identity(), *filters(http_deny_all("file-modified:c-0123")), status=403)


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
