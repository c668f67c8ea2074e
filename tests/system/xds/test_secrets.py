"""A real Envoy gets its certificate and its trusted authorities from our server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.xds.rig import REFUSED, Answer, call_once, until_refused, until_served
from tests.system.xds.sds import NOBODY, Scene, filters, identity, played
from xds.resources.secrets import tls_certificate


def test_with_its_secrets_envoy_serves_and_calls_by_mutual_tls(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        assert await call_once(at.proxy.inbound, at.caller()) == Answer(200, b"ok")
        assert await call_once(at.proxy.outbound) == Answer(200, b"ok")

    played(tmp_path, story, *identity(), *filters())


def test_a_caller_whose_name_is_not_listed_is_refused_and_logged(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        with pytest.raises(REFUSED):
            await call_once(at.proxy.inbound, at.caller("spiffe://example.org/stranger"))
        entry = await at.proxy.until_logged(
            lambda entry: entry["event"] == "connection" and entry["downstream_failure"] is not None
        )
        assert "CERTIFICATE_VERIFY_FAILED" in str(entry["downstream_failure"])

    played(tmp_path, story, *identity(), *filters())


def test_a_swapped_certificate_and_authority_refuse_new_handshakes_until_swapped_back(tmp_path: Path) -> None:
    good = identity()

    async def story(at: Scene) -> None:
        caller = at.caller()
        assert (await call_once(at.proxy.inbound, caller)).status == 200
        swapped = await at.replace(*identity(NOBODY))
        assert swapped.in_force
        assert {name for verdict in swapped.accepted for name in verdict.resources} == {"default", "ROOTCA"}
        await until_refused(at.proxy.inbound, caller)
        assert (await at.replace(*good)).in_force
        await until_served(at.proxy.inbound, caller)

    played(tmp_path, story, *good, *filters())


def test_a_certificate_envoy_cannot_use_is_reported_as_rejected_with_its_reason(tmp_path: Path) -> None:
    certificate, bundle = identity()
    broken = tls_certificate("default", b"not a certificate", b"not a key")

    async def story(at: Scene) -> None:
        heard: list[str] = []
        publication = at.server.publish(at.server.snapshot.replacing(broken))
        publication.on_rejected(lambda verdict: heard.append(verdict.reason))
        settlement = await publication.acknowledged(5)
        assert not settlement.in_force
        (rejected,) = settlement.rejected
        assert rejected.resources == ("default",)
        assert "certificate" in rejected.reason
        assert heard == [rejected.reason]

        again = at.server.publish(at.server.snapshot)
        assert not again.settlement().in_force, "the same content is still refused"
        assert (await at.replace(certificate)).in_force

    played(tmp_path, story, certificate, bundle, *filters())


def test_before_the_first_snapshot_a_silent_envoy_binds_no_port(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        await at.proxy.until_answering()
        with pytest.raises(OSError):
            await call_once(at.proxy.inbound)
        assert (await at.publish(*identity(), *filters())).in_force
        await at.proxy.until_ready()
        assert (await call_once(at.proxy.outbound)).status == 200

    played(tmp_path, story, ready=False)


def test_each_request_makes_a_handshake_where_that_is_asked_for(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        for _ in range(3):
            assert (await call_once(at.proxy.outbound)).status == 200
        assert await at.proxy.stat("cluster.peer.ssl.handshake") == 3
        assert await at.proxy.stat("cluster.peer.ssl.session_reused") == 0

    played(tmp_path, story, *identity(), *filters(), connection_per_request=True)


def test_a_refusing_envoy_goes_live_without_secrets_and_refuses(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        caller = at.caller()
        with pytest.raises(REFUSED):
            await call_once(at.proxy.inbound, caller)
        assert (await at.publish(*identity())).in_force
        await until_served(at.proxy.inbound, caller, status=403)  # a filter is still missing

    played(tmp_path, story, before_first="refuse")


def test_an_envoy_that_speaks_the_state_of_the_world_protocol_is_served_too(tmp_path: Path) -> None:
    async def story(at: Scene) -> None:
        assert (await call_once(at.proxy.outbound)).status == 200
        swapped = await at.replace(*identity(NOBODY))
        assert swapped.in_force
        assert {name for verdict in swapped.accepted for name in verdict.resources} == {"default", "ROOTCA"}
        await until_refused(at.proxy.inbound, at.caller())
        refused = await at.replace(tls_certificate("default", b"no", b"no"))
        assert [verdict.resources for verdict in refused.rejected] == [("default",)]

    played(tmp_path, story, *identity(), *filters(), api_type="GRPC")
