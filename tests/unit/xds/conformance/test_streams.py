"""What go-control-plane and java-control-plane test of their servers, asked of ours by gRPC's own client.

docs/xds-conformance.md says which of their cases each test stands for. What both protocols promise is played in both.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.unit.xds.conformance.core import PATIENCE, Core, Protocol
from tests.unit.xds.conformance.stage import (
    CLUSTER,
    EXTENSION,
    LISTENER,
    OPAQUE,
    SECRET,
    SERVED,
    TYPES,
    Stage,
    aggregated,
    everything,
    path_of,
    play,
)
from xds.snapshot import Resource, Snapshot

SOTW, DELTA = Protocol.STATE_OF_THE_WORLD, Protocol.INCREMENTAL
SECRETS = path_of(DELTA, SECRET)

both_protocols = pytest.mark.parametrize("protocol", Protocol)
every_service = pytest.mark.parametrize(("protocol", "url"), SERVED)


@every_service
@pytest.mark.parametrize("wanted", ["one", "*"])
def test_every_service_answers_a_name_and_the_star_and_takes_the_answer(
    protocol: Protocol, url: str, wanted: str, tmp_path: Path
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, path_of(protocol, url))
        call.ask(url, wanted)
        told = await call.told()
        assert (told.type_url, told.version) == (url, stage.server.snapshot.version(url))
        assert told.nonce
        assert told.resources == (call.carried(stage.resource(url)),)
        call.answer(told)
        (verdict,) = await stage.judged(1)
        assert (verdict.type_url, verdict.resources, verdict.accepted) == (url, ("one",), True)

    play(tmp_path, scene)


@pytest.mark.parametrize(("protocol", "url"), [(protocol, url) for protocol, url in SERVED if url != OPAQUE])
def test_a_service_of_one_type_needs_no_type_in_the_request(protocol: Protocol, url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, path_of(protocol, url))
        call.ask("", "one")
        assert (await call.told()).type_url == url

    play(tmp_path, scene)


@both_protocols
def test_an_aggregated_request_without_a_type_ends_its_call(protocol: Protocol, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, aggregated(protocol))
        call.ask("", "one")
        status, details = await call.status()
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert "type_url" in details
        await stage.empty()

    play(tmp_path, scene)


@both_protocols
def test_an_aggregated_call_answers_each_type_once_and_accepting_brings_nothing_more(
    protocol: Protocol, tmp_path: Path
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, aggregated(protocol))
        for url in TYPES:
            call.ask(url, *([] if url in (LISTENER, CLUSTER) else ["one"]))
        told = [await call.told() for _ in TYPES]
        assert sorted(response.type_url for response in told) == sorted(TYPES)
        for response in told:
            call.answer(response)
        assert all(verdict.accepted for verdict in await stage.judged(len(TYPES)))
        stage.server.publish(everything(b"2"))
        new = await call.told()
        assert (new.version, new.bodies) == (stage.server.snapshot.version(SECRET), [b"2"]), "and not an old response"

    play(tmp_path, scene)


def test_types_that_nobody_knows_are_kept_apart_on_one_call(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(aggregated(DELTA))
        for number in range(10):
            call.ask(f"{OPAQUE}{number % 2}", str(number))
        told = [await call.told() for _ in range(10)]
        types = {response.names[0]: response.type_url for response in told}
        assert types == {str(number): f"{OPAQUE}{number % 2}" for number in range(10)}
        call.finish()
        assert (await call.status())[0] is grpc.StatusCode.OK
        await stage.empty()

    play(tmp_path, scene, Snapshot.of(*opaque(b"")))


def test_of_state_of_the_world_requests_for_a_type_the_newest_counts(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(aggregated(SOTW))
        for number in range(10):
            call.ask(f"{OPAQUE}{number % 2}", str(number))
        call.ask(OPAQUE, "last")
        while (await call.told()).type_url != OPAQUE:
            pass
        stage.server.publish(Snapshot.of(*opaque(b"new")))
        told = [await call.told(), await call.told()]
        assert sorted(response.type_url for response in told) == [OPAQUE + "0", OPAQUE + "1"]
        assert [len(response.resources) for response in told] == [1, 1]

    play(tmp_path, scene, Snapshot.of(*opaque(b""), Resource.of(OPAQUE, "last", b"")))


def opaque(body: bytes) -> list[Resource]:
    """Ten resources of two types, in turn."""
    return [Resource.of(f"{OPAQUE}{number % 2}", str(number), body) for number in range(10)]


@every_service
def test_a_call_that_is_broken_off_is_forgotten_and_awaited_by_no_publication(
    protocol: Protocol, url: str, tmp_path: Path
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, path_of(protocol, url))
        call.ask(url, "one")
        await call.told()
        publication = stage.server.publish(everything(b"2"))
        assert not publication.settled
        call.cancel()
        settlement = await publication.acknowledged(PATIENCE)
        assert (len(settlement.gone), settlement.pending) == (1, ())
        await stage.empty()

    play(tmp_path, scene)


@every_service
def test_a_closing_server_ends_every_call_with_unavailable(protocol: Protocol, url: str, tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, path_of(protocol, url))
        call.ask(url, "one")
        await call.told()
        await stage.server.close()
        status, details = await call.status()
        assert (status, details) == (grpc.StatusCode.UNAVAILABLE, "the server is closing")

    play(tmp_path, scene)


def test_a_stale_nonce_is_passed_over_and_the_fresh_one_counts(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.sotw(aggregated(SOTW))
        call.ask(SECRET, "one")
        first = await call.told()
        call.ask(SECRET, "one", "two", after=replace(first, nonce="xyz"))
        call.ask(SECRET, "one", after=first)
        (verdict,) = await stage.judged(1)
        assert (verdict.nonce, verdict.accepted) == (first.nonce, True)
        stage.server.publish(everything(b"2").replacing(Resource.of(SECRET, "two", b"")))
        assert (await call.told()).bodies == [b"2"], "the stale request subscribed nothing"

    play(tmp_path, scene)


@both_protocols
def test_a_rejection_reaches_the_caller_with_the_client_s_reason_and_the_next_content_is_accepted(
    protocol: Protocol, tmp_path: Path
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, path_of(protocol, SECRET))
        call.ask(SECRET, "one")
        call.answer(await call.told())
        refused = stage.server.publish(everything(b"bad"))
        call.answer(await call.told(), "one: no such key")
        (rejection,) = (await refused.acknowledged(PATIENCE)).rejected
        assert (rejection.reason, rejection.blamed) == ("one: no such key", ("one",))
        mended = stage.server.publish(everything(b"good"))
        call.answer(await call.told())
        assert (await mended.acknowledged(PATIENCE)).in_force
        assert [verdict.accepted for verdict in stage.verdicts] == [True, False, True]
        assert stage.verdicts[1] == rejection

    play(tmp_path, scene)


def test_a_client_that_reconnects_is_told_what_changed_and_what_is_gone_and_nothing_else(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        first = core.delta(SECRETS)
        first.ask(SECRET, "kept", "changed", "gone")
        held = {resource.name: resource.version for resource in (await first.told()).resources}
        first.cancel()
        kept, changed = Resource.of(SECRET, "kept", b"1"), Resource.of(SECRET, "changed", b"2")
        stage.server.publish(Snapshot.of(kept, changed))
        again = core.delta(SECRETS)
        again.ask(SECRET, "kept", "changed", "gone", holding=held)
        told = await again.told()
        assert (told.names, told.removed) == (["changed"], ("gone",))

    play(tmp_path, scene, Snapshot.of(*(Resource.of(SECRET, name, b"1") for name in ("kept", "changed", "gone"))))


def test_a_resource_is_asked_for_on_demand_and_its_absence_is_told_at_once_where_it_is_final(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(aggregated(DELTA))
        call.ask(SECRET, "one")
        assert (await call.told()).names == ["one"]
        call.ask(SECRET, "later")
        told = await call.told()
        assert (told.names, told.removed) == ([], ("later",))
        stage.server.publish(stage.server.snapshot.replacing(Resource.of(SECRET, "later", b"1")))
        assert (await call.told()).names == ["later"]

    play(tmp_path, scene, Snapshot.of(Resource.of(SECRET, "one", b"1"), complete=[SECRET]))


def test_heartbeats_resend_the_full_resource_with_its_lifetime_and_nothing_without_one(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.delta(aggregated(DELTA))
        call.ask(EXTENSION, "mortal", "immortal")
        assert len((await call.told()).resources) == 2
        for _ in range(2):
            assert stage.server.heartbeat() == 1
            (beat,) = (await call.told()).resources
            assert beat.ttl is not None
            assert (beat.name, beat.body, beat.ttl.total_seconds()) == ("mortal", b"1", 3.0)

    mortal = Resource.of(EXTENSION, "mortal", b"1", ttl=3)
    play(tmp_path, scene, Snapshot.of(mortal, Resource.of(EXTENSION, "immortal", b"1")))


def test_more_than_a_hundred_calls_share_a_connection(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        calls = [core.delta(SECRETS) for _ in range(150)]
        for call in calls:
            call.ask(SECRET, "one")
        for call in calls:
            assert len((await call.told()).resources) == 1
        assert stage.server.streams == 150
        publication = stage.server.publish(everything(b"2"))
        for call in calls:
            call.answer(await call.told())
        assert (await publication.acknowledged(PATIENCE)).in_force
        for call in calls:
            call.finish()
        await stage.empty()

    play(tmp_path, scene)


@both_protocols
def test_a_call_that_does_not_read_is_told_the_newest_and_little_of_what_came_before(
    protocol: Protocol, tmp_path: Path
) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        call = core.call(protocol, path_of(protocol, SECRET))
        call.ask(SECRET, "one")
        told = await call.told()
        for number in range(40):
            stage.server.publish(Snapshot.of(Resource.of(SECRET, "one", b"%02d" % number * 500_000)))
        newest = stage.server.snapshot.version(SECRET)
        read = 0
        while told.version != newest:
            told = await call.told()
            read += 1
        assert read < 20

    play(tmp_path, scene)
