"""What Envoy does with secrets, good ones, bad ones and none: why a closing serves poison, and cuts besides."""

from __future__ import annotations

import asyncio
import datetime
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.serving import named
from tests.system.closing.clients import ENDED, KeptAlive, Silent, Tcp
from tests.system.closing.service import Service as Application
from tests.system.xds.facts import HTTP, TCP, World, described, filters, world
from tests.system.xds.pki import Authority, client_context, server_context
from tests.system.xds.rig import LOCALHOST, PATIENCE, SPIFFE_ID, Events, call_once, envoy, make_server, until
from tests.system.xds.sds import identity
from xds.resources.secrets import SECRET_TYPE, tls_certificate, validation_context
from xds.resources.service import HostPort
from xds.snapshot import Reference, Snapshot

STRANGER = "spiffe://example.org/stranger"
CERTIFICATE = Reference(SECRET_TYPE, "default")
SUBSCRIPTIONS = 6
"""Two secrets and four filters, however many ports and peers share them."""


@pytest.fixture(scope="module")
def at() -> Iterator[World]:
    with world(delivered=False) as made:
        yield made


def poisoned(at: World) -> Snapshot:
    return at.base.replacing(*identity(Authority("nobody")))


def test_a_removed_secret_keeps_serving_the_old_certificate(at: World) -> None:
    async def story() -> None:
        caller = at.caller()
        await at.accepted(at.base.without(CERTIFICATE))
        assert any(verdict.removed == ("default",) and verdict.accepted for verdict in at.events.verdicts)
        assert (await call_once(at.inbound, caller)).status == 200

    at.tells(story)


def test_a_secret_whose_lifetime_ends_keeps_serving(at: World) -> None:
    async def story() -> None:
        caller = at.caller()
        certificate, _ = identity(at.authority)
        await at.accepted(at.base.replacing(certificate.with_ttl(0.1)))
        # Where a lifetime is felt, it is over after so long: a filter's beside it says when.
        dying = filters(ttl=0.1)
        await at.accepted(at.server.snapshot.replacing(*dying))
        await at.until_refused(Tcp, TCP)
        await at.accepted(at.server.snapshot.replacing(*filters()))
        await at.until_served(Tcp, TCP)
        assert (await call_once(at.inbound, caller)).status == 200

    at.tells(story)


def test_poison_leaves_open_connections_alone(at: World) -> None:
    async def story() -> None:
        held = await at.held()
        await at.accepted(poisoned(at))
        with pytest.raises(ENDED):
            await call_once(at.inbound, at.caller())
        for client in held:
            await client.ask()
            client.close()

    at.tells(story)


def test_of_certificates_envoy_lists_the_new_one_alone_although_connections_of_before_are_open(at: World) -> None:
    async def story() -> None:
        held = await at.held()
        leaf = at.authority.leaf(SPIFFE_ID)
        await at.accepted(at.base.replacing(tls_certificate("default", leaf.chain_pem, leaf.key_pem)))
        status, listed = await at.proxy.admin("/certs")
        assert status == 200
        assert set(named(listed)) == {leaf.certificate.serial_number}
        for client in held:
            await client.ask()
            client.close()

    at.tells(story)


def test_a_new_call_under_poison_is_still_served_over_a_pooled_connection(at: World) -> None:
    async def story() -> None:
        assert await at.serves(KeptAlive, HTTP)
        await at.accepted(poisoned(at))
        with pytest.raises(ENDED):
            await call_once(at.inbound, at.caller())
        assert await at.serves(KeptAlive, HTTP)

    at.tells(story)


def test_a_connection_that_was_accepted_before_poison_shakes_hands_under_the_old_certificate_after_it(
    at: World,
) -> None:
    """Why a closing sweeps once more after Envoy has acknowledged."""

    async def story() -> None:
        accepted = await at.proxy.stat(active(at))
        silent = await Silent.open(LOCALHOST, at.inbound)
        async with asyncio.timeout(PATIENCE):
            while await at.proxy.stat(active(at)) <= accepted:  # noqa: ASYNC110 -- Envoy has no event for it
                await asyncio.sleep(0.01)
        await at.accepted(poisoned(at))
        with pytest.raises(ENDED):
            await call_once(at.inbound, at.caller())
        assert await silent.offered() == (SPIFFE_ID,)
        silent.close()

    at.tells(story)


def active(at: World) -> str:
    return f"listener.127.0.0.1_{at.inbound}.downstream_cx_active"


def test_an_invalid_poison_is_rejected_and_the_old_certificate_serves(at: World) -> None:
    async def story() -> None:
        caller = at.caller()
        settlement = await at.publish(at.base.replacing(tls_certificate("default", b"none", b"none")))
        assert [verdict.resources for verdict in settlement.rejected] == [("default",)]
        assert (await call_once(at.inbound, caller)).status == 200

    at.tells(story)


def test_identical_sources_share_one_subscription_however_many_ports_there_are(at: World) -> None:
    async def story() -> None:
        assert at.server.streams == SUBSCRIPTIONS

    at.tells(story)


def test_no_session_is_resumed_by_either_side(at: World) -> None:
    async def story() -> None:
        context, session = at.caller(), None
        for _ in range(3):
            session, reused = await resuming(at.inbound, context, session)
            assert not reused
            assert await at.serves(KeptAlive, HTTP)
        for stat in (f"listener.127.0.0.1_{at.inbound}.ssl.session_reused", "cluster.http-peer.ssl.session_reused"):
            assert await at.proxy.stat(stat) == 0

    at.tells(story)


def test_without_that_a_session_is_resumed_although_the_certificate_behind_it_has_expired() -> None:
    """Why resumption is off: a handshake that is cut short looks at no certificate."""
    with world(delivered=False, bootstrap=with_resumption) as own:

        async def story() -> None:
            leaf = own.authority.leaf(SPIFFE_ID, valid_for=datetime.timedelta(seconds=2))
            context = own.caller_with(leaf)
            session, _ = await resuming(own.inbound, context, None)
            await asyncio.sleep((leaf.certificate.not_valid_after_utc - now()).total_seconds() + 1.0)
            with pytest.raises(ENDED):
                await resuming(own.inbound, context, None)
            _, reused = await resuming(own.inbound, context, session)
            assert reused

        own.tells(story)


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "as by default"])
def test_a_session_that_a_peer_offers_is_not_kept_though_by_default_it_is(ours: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority("mesh")
        context = server_context(authority.leaf(SPIFFE_ID), authority.bundle_pem, tmp_path)
        peer = await asyncio.start_server(Application().http, LOCALHOST, 0, ssl=context)
        port = HostPort(LOCALHOST, int(peer.sockets[0].getsockname()[1]))
        description = described(tmp_path, 1, 1)
        calling = replace(description.service.upstreams[HTTP], peers=(port,), connection_per_request=True)
        description = replace(description, service=replace(description.service, upstreams=(calling,)))
        async with (
            peer,
            make_server(description.xds_socket, Events()) as server,
            envoy(description, tmp_path, bootstrap=str if ours else with_resumption) as proxy,
        ):
            server.publish(Snapshot.of(*identity(authority), *filters()))
            await proxy.until_ready()
            for _ in range(4):
                assert (await call_once(calling.listen.port)).status == 200
            reused = await proxy.stat("cluster.http-peer.ssl.session_reused")
            assert (reused == 0) is ours

    asyncio.run(scenario())


def with_resumption(bootstrap: str) -> str:
    """As Envoy has it by default."""
    allowed = re.sub(r'("disable_state\w+_session_resumption": )true', r"\1false", bootstrap)
    return allowed.replace('"max_session_keys": 0', '"max_session_keys": 1')


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


async def resuming(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession, bool]:
    """One request by a client that offers a session; the session it has now, and whether that was taken."""

    def ask() -> tuple[ssl.SSLSession, bool]:
        with (
            socket.create_connection((LOCALHOST, port), PATIENCE) as plain,
            context.wrap_socket(plain, session=session) as secured,
        ):
            secured.sendall(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            assert secured.recv(4096).startswith(b"HTTP/1.1 ")
            kept, reused = secured.session, secured.session_reused
            assert kept is not None
            return kept, bool(reused)

    return await asyncio.to_thread(ask)


# Names.


def test_the_names_in_a_delivered_context_widen_those_in_the_listener(at: World) -> None:
    """Why none are delivered."""

    async def story() -> None:
        stranger = at.caller_with(at.authority.leaf(STRANGER))
        with pytest.raises(ENDED):
            await call_once(at.inbound, stranger)
        named = validation_context("ROOTCA", at.authority.bundle_pem, san_exact=(STRANGER,))
        await at.accepted(at.base.replacing(named))
        assert (await call_once(at.inbound, stranger)).status == 200
        assert (await call_once(at.inbound, at.caller())).status == 200

    at.tells(story)


def test_where_nobody_is_named_anybody_is_served() -> None:
    """Why a port without callers is refused when it is described."""
    with world(delivered=False, bootstrap=without_names) as own:

        async def story() -> None:
            stranger = own.caller_with(own.authority.leaf(STRANGER))
            assert (await call_once(own.inbound, stranger)).status == 200

        own.tells(story)


def without_names(bootstrap: str) -> str:
    return re.sub(r'"match_typed_subject_alt_names": \[[^]]*\]', '"match_typed_subject_alt_names": []', bootstrap)


# Revocation lists.


def with_list(at: World, crl: bytes, *, only_leaf: bool, bundle: bytes) -> Snapshot:
    return at.base.replacing(validation_context("ROOTCA", bundle, crl_pem=crl, only_leaf_crl=only_leaf))


def test_a_list_must_be_there_for_every_authority_unless_only_the_leafs_issuer_counts(at: World) -> None:
    async def story() -> None:
        root = Authority("root")
        between = Authority("between", issued_by=root)
        context = client_context(between.leaf(SPIFFE_ID), at.authority.bundle_pem, at.folder)
        await at.accepted(with_list(at, between.crl(), only_leaf=True, bundle=root.bundle_pem))
        assert (await call_once(at.inbound, context)).status == 200
        await at.accepted(with_list(at, between.crl(), only_leaf=False, bundle=root.bundle_pem))
        with pytest.raises(ENDED):
            await call_once(at.inbound, context)
        await at.accepted(with_list(at, between.crl() + root.crl(), only_leaf=False, bundle=root.bundle_pem))
        assert (await call_once(at.inbound, context)).status == 200

    at.tells(story)


def test_a_list_past_its_next_update_refuses_everybody(at: World) -> None:
    async def story() -> None:
        issuer = Authority("issuer")
        context = client_context(issuer.leaf(SPIFFE_ID), at.authority.bundle_pem, at.folder)
        await at.accepted(with_list(at, issuer.crl(), only_leaf=True, bundle=issuer.bundle_pem))
        assert (await call_once(at.inbound, context)).status == 200
        await at.accepted(with_list(at, issuer.crl(valid_for=-60), only_leaf=True, bundle=issuer.bundle_pem))
        with pytest.raises(ENDED):
            await call_once(at.inbound, context)

    at.tells(story)


# Before there is anything.


def anybody() -> ssl.SSLContext:
    """A client who takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_envoy_that_gets_poison_first_is_live_refuses_and_recovers(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority, mesh_filters = Authority("mesh"), filters()
        description = replace(described(tmp_path, 1, 1), before_first="refuse")
        async with make_server(description.xds_socket, Events()) as server:
            server.publish(Snapshot.of(*identity(Authority("nobody")), *mesh_filters))
            async with envoy(description, tmp_path) as proxy:
                await proxy.until_ready()
                context = client_context(authority.leaf(SPIFFE_ID), authority.bundle_pem, tmp_path)
                port = description.service.inbound[HTTP].listen.port
                with pytest.raises(ENDED):
                    await call_once(port, context)
                settlement = await server.publish(Snapshot.of(*identity(authority), *mesh_filters)).acknowledged(5)
                assert settlement.in_force
                assert (await call_once(port, context)).status == 503, "there is no application behind it"

    asyncio.run(scenario())


def test_envoy_that_is_told_a_secret_does_not_exist_goes_live_without_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        description = described(tmp_path, 1, 1)
        async with make_server(description.xds_socket, Events()) as server, envoy(description, tmp_path) as proxy:
            await proxy.until_answering()
            await until(lambda: server.streams >= 2)
            assert (await proxy.admin("/ready"))[0] == 503
            server.publish(Snapshot.of(*filters(), complete=(SECRET_TYPE,)))
            await proxy.until_ready()
            with pytest.raises(ENDED):
                await call_once(description.service.inbound[HTTP].listen.port, anybody())

    asyncio.run(scenario())
