"""What whoever publishes learns: which clients have it in force, which refused it, and which never had it."""

from __future__ import annotations

from pathlib import Path

from tests.unit.xds.grpc_client import DELTA_AGGREGATED, SocketClient
from tests.unit.xds.stage import CLUSTER, LISTENER, NOW, Stage, play, secret
from xds.acks import Settlement
from xds.server import MAX_UNSETTLED
from xds.snapshot import Resource, Snapshot

A, BAD = secret("a", b"1"), secret("a", b"bad")
PATIENCE = 5.0


def reasons(settlement: Settlement) -> list[str]:
    return [verdict.reason for verdict in settlement.rejected]


async def flush(client: SocketClient) -> None:
    """Whatever the client sent before has been read when another stream is answered."""
    await client.subscribed("a")


def test_a_publication_is_in_the_socket_when_publish_returns(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, _ = await client.subscribed("a")
        at.server.publish(Snapshot.of(secret("a", b"2")))
        # The event loop has not run since: the bytes can only be there if publish wrote them itself.
        client.data_received(client.transport.get_extra_info("socket").dup().recv(65_536))
        assert client.said(stream)[-1].bodies == (b"2",)

    play(tmp_path, scene, A)


def test_acceptance_and_rejection_reach_the_publication_and_the_caller(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream_a, told_a = await client.subscribed("a")
        stream_b, told_b = await client.subscribed("b")
        client.answer(stream_a, told_a)
        client.answer(stream_b, told_b)
        assert (await at.server.publish(at.server.snapshot).acknowledged(PATIENCE)).in_force

        publication = at.server.publish(Snapshot.of(secret("a", b"2"), secret("b", b"1")))
        client.answer(stream_a, await client.told(stream_a, 2), "no good")
        settlement = await publication.acknowledged(PATIENCE)
        (rejected,) = settlement.rejected
        assert (rejected.resources, rejected.reason, rejected.at) == (("a",), "no good", NOW)
        assert settlement.accepted == (), "the stream that had not to be told is not awaited"
        assert [verdict.accepted for verdict in at.verdicts] == [True, True, False]

    play(tmp_path, scene, A, secret("b", b"1"))


def test_a_rejection_of_part_of_a_publication_is_a_rejection_of_it_whatever_else_is_accepted(tmp_path: Path) -> None:
    listener = Resource.of(LISTENER, "l", b"")

    async def scene(at: Stage, client: SocketClient) -> None:
        stream = client.grpc.open(DELTA_AGGREGATED)
        for url in (LISTENER, CLUSTER):
            client.grpc.subscribe(stream, type_url=url)
        client.flush()
        for count in (1, 2):
            client.answer(stream, await client.told(stream, count))
        publication = at.server.publish(Snapshot.of(Resource.of(CLUSTER, "new", b""), listener))
        client.answer(stream, await client.told(stream, 3), "no good")
        client.answer(stream, await client.told(stream, 4))
        settlement = await publication.acknowledged(PATIENCE)
        assert (settlement.in_force, settlement.pending) == (False, ())
        assert [verdict.resources for verdict in settlement.rejected] == [("new",)]
        assert ("old",) in [verdict.removed for verdict in settlement.accepted]

    play(tmp_path, scene, Resource.of(CLUSTER, "old", b""), listener)


def test_a_rejection_of_what_was_told_before_counts_for_a_publication_that_still_says_it(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, first = await client.subscribed("a", "b")
        publication = at.server.publish(Snapshot.of(BAD, secret("b", b"2")))
        second = await client.told(stream, 2)
        client.answer(stream, first, "no good")
        client.answer(stream, second)
        settlement = await publication.acknowledged(PATIENCE)
        assert (reasons(settlement), settlement.in_force) == (["no good"], False)

    play(tmp_path, scene, BAD, secret("b", b"1"))


def test_rejected_content_beside_something_new_does_not_look_like_success(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, first = await client.subscribed("a", "b")
        client.answer(stream, first, "no good")
        await flush(client)
        publication = at.server.publish(Snapshot.of(BAD, secret("b", b"1")))
        client.answer(stream, await client.told(stream, 2))
        await flush(client)
        assert [verdict.accepted for verdict in at.verdicts] == [False, True]
        assert reasons(publication.settlement()) == ["no good"]

    play(tmp_path, scene, BAD)


def test_publishing_rejected_content_again_does_not_look_like_success(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, told = await client.subscribed("a")
        client.answer(stream, told, "no good")
        await at.server.publish(Snapshot.of(A)).acknowledged(PATIENCE)
        assert reasons(at.server.publish(Snapshot.of(A)).settlement()) == ["no good"]

    play(tmp_path, scene, A)


def test_publishing_the_same_again_waits_for_the_answer_that_is_still_due(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, told = await client.subscribed("a")
        publication = at.server.publish(Snapshot.of(A))
        assert not publication.settled
        client.answer(stream, told)
        assert (await publication.acknowledged(PATIENCE)).in_force

    play(tmp_path, scene, A)


def test_a_stream_that_ends_before_it_answers_is_gone(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        await client.subscribed("a")
        publication = at.server.publish(Snapshot.of(secret("a", b"2")))
        client.transport.abort()
        settlement = await publication.acknowledged(PATIENCE)
        assert (len(settlement.gone), settlement.accepted) == (1, ())
        assert at.server.streams == 0

    play(tmp_path, scene, A)


def test_a_callback_may_publish(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        def restore(_: object) -> None:
            at.server.publish(Snapshot.of(A))

        stream, told = await client.subscribed("a")
        client.answer(stream, told)
        at.server.publish(Snapshot.of(BAD)).on_rejected(restore)
        client.answer(stream, await client.told(stream, 2), "no good")
        assert (await client.told(stream, 3)).bodies == (b"1",)

    play(tmp_path, scene, A)


def test_what_a_slow_client_is_told_late_is_awaited_by_its_own_nonce(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, first = await client.subscribed("a")
        client.answer(stream, first)
        client.transport.pause_reading()
        snapshots = [Snapshot.of(secret("a", b"%d" % number * 200_000)) for number in range(20)]
        publication = [at.server.publish(snapshot) for snapshot in snapshots][-1]
        assert publication.not_written(next(iter(publication.settlement().pending)))
        client.transport.resume_reading()
        newest = b"19" * 200_000
        await client.until(lambda: newest in client.said(stream)[-1].bodies)
        told = client.said(stream)[1:]
        for late in told[:-1]:
            client.answer(stream, late)
        client.answer(stream, told[-1], "no good")
        settlement = await publication.acknowledged(PATIENCE)
        assert [verdict.nonce for verdict in settlement.rejected] == [told[-1].nonce]

    play(tmp_path, scene, A)


def test_unanswered_publications_are_followed_up_to_a_limit(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        await client.subscribed("a")
        publications = [
            at.server.publish(Snapshot.of(secret("a", b"%d" % number))) for number in range(MAX_UNSETTLED + 1)
        ]
        assert publications[0].settlement().superseded
        assert not publications[1].settled

    play(tmp_path, scene, secret("a", b"first"))
