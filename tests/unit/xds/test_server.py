"""The server over a real Unix socket."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.xds.grpc_client import DELTA_AGGREGATED, SECRETS, STREAM_SECRETS, SocketClient
from xds.acks import Verdict
from xds.admission import Admission, Refusal
from xds.errors import GrpcStatus
from xds.listening import Endpoint
from xds.messages import encode_discovery
from xds.peer import Peer
from xds.server import MAX_UNSETTLED, Server
from xds.snapshot import Resource, Snapshot

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


@dataclass
class Reports:
    verdicts: list[Verdict] = field(default_factory=list)
    refusals: list[tuple[Peer | None, Refusal]] = field(default_factory=list)


def server(path: Path, reports: Reports | None = None, *, uids: frozenset[int] | None = None) -> Server:
    reports = reports or Reports()
    rules = Admission(
        frozenset({os.getuid()}) if uids is None else uids,
        on_refused=lambda peer, refusal: reports.refusals.append((peer, refusal)),
    )
    return Server(Endpoint(path / "xds.sock"), rules, on_verdict=reports.verdicts.append, clock=lambda: 42.0)


def secret(name: str, body: bytes, ttl: float | None = None) -> Resource:
    return Resource.of(SECRETS, name, body, ttl=ttl)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_publication_is_in_the_socket_when_publish_returns(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, _ = await client.subscribed("a")
            serving.publish(Snapshot.of(secret("a", b"2")))
            # The event loop has not run since: the bytes can only be there if publish wrote them itself.
            client.data_received(client.transport.get_extra_info("socket").dup().recv(65_536))
            assert client.grpc.streams[stream].told()[-1].bodies == (b"2",)

    run(scenario())


def test_acceptance_and_rejection_reach_the_publication_and_the_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        reports = Reports()
        async with server(tmp_path, reports) as serving:
            serving.publish(Snapshot.of(secret("a", b"1"), secret("b", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream_a, told_a = await client.subscribed("a")
            stream_b, told_b = await client.subscribed("b")
            client.answer(stream_a, told_a)
            client.answer(stream_b, told_b)
            assert (await serving.publish(serving.snapshot).acknowledged(5)).in_force

            publication = serving.publish(Snapshot.of(secret("a", b"2"), secret("b", b"1")))
            client.answer(stream_a, await client.told(stream_a, 2), "no good")
            settlement = await publication.acknowledged(5)
            (rejected,) = settlement.rejected
            assert (rejected.resources, rejected.reason, rejected.at) == (("a",), "no good", 42.0)
            assert settlement.accepted == (), "the stream that had not to be told is not awaited"
            assert [v.accepted for v in reports.verdicts] == [True, True, False]

    run(scenario())


def test_a_rejection_of_part_of_a_publication_is_a_rejection_of_it_whatever_else_is_accepted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            old, listener = Resource.of(CLUSTER, "old", b""), Resource.of(LISTENER, "l", b"")
            serving.publish(Snapshot.of(old, listener))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream = client.grpc.open(DELTA_AGGREGATED)
            for url in (LISTENER, CLUSTER):
                client.grpc.subscribe(stream, type_url=url)
            client.flush()
            for count in (1, 2):
                client.answer(stream, await client.told(stream, count))
            publication = serving.publish(Snapshot.of(Resource.of(CLUSTER, "new", b""), listener))
            client.answer(stream, await client.told(stream, 3), "no good")
            client.answer(stream, await client.told(stream, 4))
            settlement = await publication.acknowledged(5)
            assert (settlement.in_force, settlement.pending) == (False, ())
            assert [verdict.resources for verdict in settlement.rejected] == [("new",)]
            assert ("old",) in [verdict.removed for verdict in settlement.accepted]

    run(scenario())


def test_a_rejection_of_what_was_told_before_counts_for_a_publication_that_still_says_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"bad"), secret("b", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, first = await client.subscribed("a", "b")
            publication = serving.publish(Snapshot.of(secret("a", b"bad"), secret("b", b"2")))
            second = await client.told(stream, 2)
            client.answer(stream, first, "no good")
            client.answer(stream, second)
            settlement = await publication.acknowledged(5)
            assert [verdict.reason for verdict in settlement.rejected] == ["no good"]
            assert not settlement.in_force

    run(scenario())


def test_rejected_content_beside_something_new_does_not_look_like_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        reports = Reports()
        async with server(tmp_path, reports) as serving:
            serving.publish(Snapshot.of(secret("a", b"bad")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, first = await client.subscribed("a", "b")
            client.answer(stream, first, "no good")
            await client.subscribed("a")  # its answer proves that what was sent before has been read
            publication = serving.publish(Snapshot.of(secret("a", b"bad"), secret("b", b"1")))
            client.answer(stream, await client.told(stream, 2))
            await client.subscribed("a")
            assert [verdict.accepted for verdict in reports.verdicts] == [False, True]
            assert [verdict.reason for verdict in publication.settlement().rejected] == ["no good"]

    run(scenario())


def test_what_a_slow_client_is_told_late_is_awaited_by_its_own_nonce(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"first")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, first = await client.subscribed("a")
            client.answer(stream, first)
            client.transport.pause_reading()
            for number in range(20):
                publication = serving.publish(Snapshot.of(secret("a", b"%d" % number * 200_000)))
            assert publication.not_written(next(iter(publication.settlement().pending)))
            client.transport.resume_reading()
            newest = b"19" * 200_000
            await client.until(lambda: newest in client.grpc.streams[stream].told()[-1].bodies)
            told = client.grpc.streams[stream].told()[1:]
            for late in told[:-1]:
                client.answer(stream, late)
            client.answer(stream, told[-1], "no good")
            settlement = await publication.acknowledged(5)
            assert [verdict.nonce for verdict in settlement.rejected] == [told[-1].nonce]

    run(scenario())


def test_publishing_rejected_content_again_does_not_look_like_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            first = Snapshot.of(secret("a", b"1"))
            serving.publish(first)
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, told = await client.subscribed("a")
            client.answer(stream, told, "no good")
            await serving.publish(first).acknowledged(5)
            assert [v.reason for v in serving.publish(first).settlement().rejected] == ["no good"]

    run(scenario())


def test_publishing_the_same_again_waits_for_the_answer_that_is_still_due(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            snapshot = Snapshot.of(secret("a", b"1"))
            serving.publish(snapshot)
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, told = await client.subscribed("a")
            publication = serving.publish(snapshot)
            assert not publication.settled
            client.answer(stream, told)
            assert (await publication.acknowledged(5)).in_force

    run(scenario())


def test_a_stream_that_ends_before_it_answers_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            await client.subscribed("a")
            publication = serving.publish(Snapshot.of(secret("a", b"2")))
            client.transport.abort()
            settlement = await publication.acknowledged(5)
            assert len(settlement.gone) == 1
            assert settlement.accepted == ()
            assert serving.streams == 0

    run(scenario())


def test_a_callback_may_publish(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            good, bad = Snapshot.of(secret("a", b"good")), Snapshot.of(secret("a", b"bad"))
            serving.publish(good)
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, told = await client.subscribed("a")
            client.answer(stream, told)
            serving.publish(bad).on_rejected(lambda _: void(serving.publish(good)))
            client.answer(stream, await client.told(stream, 2), "no good")
            assert (await client.told(stream, 3)).bodies == (b"good",)

    run(scenario())


def void(_: object) -> None:
    return None


def test_a_heartbeat_resends_in_full_what_has_a_lifetime(tmp_path: Path) -> None:
    async def scenario() -> None:
        reports = Reports()
        async with server(tmp_path, reports) as serving:
            serving.publish(Snapshot.of(secret("a", b"1", ttl=3), secret("b", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream_a, _ = await client.subscribed("a")
            await client.subscribed("b")
            assert serving.heartbeat() == 1
            told = await client.told(stream_a, 2)
            assert (told.names, told.bodies) == (("a",), (b"1",))
            client.answer(stream_a, told)
            await client.subscribed("b")  # its answer proves that what was sent before has been read
            assert [v.heartbeat for v in reports.verdicts] == [True]

    run(scenario())


def test_a_client_that_does_not_read_costs_one_response_and_gets_the_newest_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"first")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, _ = await client.subscribed("a")
            client.transport.pause_reading()
            publications = [serving.publish(Snapshot.of(secret("a", b"%d" % number * 200_000))) for number in range(20)]
            stuck = publications[-2].settlement()
            assert stuck.superseded, "what was never written is overtaken"
            client.transport.resume_reading()
            newest = b"19" * 200_000
            await client.until(lambda: any(newest in told.bodies for told in client.grpc.streams[stream].told()))
            assert len(client.grpc.streams[stream].messages) < 8, "most of the rest was never sent"

    run(scenario())


def test_from_a_client_that_does_not_read_nothing_more_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"first"), secret("b", b"0")))
            client = await SocketClient.connect(tmp_path / "xds.sock", window=2**31 - 1)
            client.grpc.h2.increment_flow_control_window(2**31 - 1 - 65_535)
            await client.subscribed("a")
            client.transport.pause_reading()
            serving.publish(serving.snapshot.replacing(secret("a", bytes(4_000_000))))
            for _ in range(40_000):
                client.grpc.h2.ping(bytes(8))
            client.flush()
            other = await SocketClient.connect(tmp_path / "xds.sock")
            for _ in range(20):
                await other.subscribed("b")  # time for the server to read whatever it is willing to read
            assert client.transport.get_write_buffer_size() > 0
            client.transport.resume_reading()
            await client.until(lambda: client.transport.get_write_buffer_size() == 0)

    run(scenario())


def test_unanswered_publications_are_followed_up_to_a_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"first")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            await client.subscribed("a")
            publications = [
                serving.publish(Snapshot.of(secret("a", b"%d" % number))) for number in range(MAX_UNSETTLED + 1)
            ]
            assert publications[0].settlement().superseded
            assert not publications[1].settled

    run(scenario())


def test_aggregated_streams_get_clusters_before_listeners_and_removals_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            old_cluster, new_cluster = Resource.of(CLUSTER, "old", b""), Resource.of(CLUSTER, "new", b"")
            serving.publish(Snapshot.of(old_cluster, Resource.of(LISTENER, "l", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream = client.grpc.open(DELTA_AGGREGATED)
            client.grpc.subscribe(stream, type_url=LISTENER)
            client.grpc.subscribe(stream, type_url=CLUSTER)
            client.flush()
            await client.told(stream, 2)
            serving.publish(Snapshot.of(new_cluster, Resource.of(LISTENER, "l", b"2")))
            await client.told(stream, 5)
            told = [(t.type_url, t.names, t.removed) for t in client.grpc.streams[stream].told()[2:]]
            assert told == [
                (CLUSTER, ("new",), ()),
                (LISTENER, ("l",), ()),
                (CLUSTER, (), ("old",)),
            ]
            serving.publish(Snapshot.EMPTY)
            await client.told(stream, 7)
            gone = [(t.type_url, t.removed) for t in client.grpc.streams[stream].told()[5:]]
            assert gone == [(LISTENER, ("l",)), (CLUSTER, ("new",))], "what refers goes before what it refers to"
            nonces = [t.nonce for t in client.grpc.streams[stream].told()]
            assert len(set(nonces)) == len(nonces)

    run(scenario())


def test_a_request_for_another_type_ends_the_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream = client.grpc.open()
            client.grpc.subscribe(stream, "a", type_url=LISTENER)
            client.flush()
            await client.until(lambda: client.grpc.streams[stream].ended)
            assert client.grpc.streams[stream].status == GrpcStatus.INVALID_ARGUMENT
            assert serving.streams == 0

    run(scenario())


def test_a_lifetime_published_to_a_sotw_stream_ends_that_stream_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            sotw = client.grpc.open(STREAM_SECRETS)
            client.grpc.send(sotw, encode_discovery("DiscoveryRequest", type_url=SECRETS, resource_names=["a"]))
            delta, _ = await client.subscribed("a")
            serving.publish(Snapshot.of(secret("a", b"2", ttl=3)))
            assert (await client.told(delta, 2)).bodies == (b"2",)
            await client.until(lambda: client.grpc.streams[sotw].ended)
            assert client.grpc.streams[sotw].status == GrpcStatus.FAILED_PRECONDITION

    run(scenario())


def test_closing_ends_streams_with_unavailable_and_removes_the_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, _ = await client.subscribed("a")
        await client.until(lambda: client.hung_up)
        assert client.grpc.streams[stream].status == GrpcStatus.UNAVAILABLE
        assert not (tmp_path / "xds.sock").exists()

    run(scenario())


def test_a_socket_whose_file_is_gone_is_made_again_and_open_connections_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving, asyncio.TaskGroup() as tasks:
            serving.publish(Snapshot.of(secret("a", b"1")))
            client = await SocketClient.connect(tmp_path / "xds.sock")
            stream, _ = await client.subscribed("a")
            told: asyncio.Queue[str] = asyncio.Queue()
            looking = tasks.create_task(serving.keep_listening(told.put_nowait, every=0.01))
            (tmp_path / "xds.sock").unlink()
            assert "there is a new one" in await told.get()
            await (await SocketClient.connect(tmp_path / "xds.sock")).subscribed("a")
            serving.publish(Snapshot.of(secret("a", b"2")))
            await client.until(lambda: client.grpc.streams[stream].told()[-1].bodies == (b"2",))
            looking.cancel()

    run(scenario())


def test_a_refused_user_gets_no_byte_and_is_reported(tmp_path: Path) -> None:
    async def scenario() -> None:
        reports = Reports()
        async with server(tmp_path, reports, uids=frozenset({os.getuid() + 1})) as serving:
            before = descriptors()
            client = await SocketClient.connect(tmp_path / "xds.sock")
            await client.until(lambda: client.hung_up)
            assert descriptors() == before
            ((peer, refusal),) = reports.refusals
            assert peer is not None
            assert peer.pid == os.getpid()
            assert f"user {os.getuid()} may not connect" in refusal.reason
            assert serving.client is None

    run(scenario())


def test_the_caller_s_own_rule_can_refuse(tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = Admission(frozenset({os.getuid()}), admit=lambda peer: Refusal(f"not {peer.executable}"))
        async with Server(Endpoint(tmp_path / "xds.sock"), rules) as serving:
            client = await SocketClient.connect(tmp_path / "xds.sock")
            await client.until(lambda: client.hung_up)
            assert serving.client is None

    run(scenario())


def test_a_rule_that_fails_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        def fail(peer: Peer) -> Refusal | None:
            raise RuntimeError(f"cannot judge {peer.pid}")

        failures: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(str(context.get("exception"))))
        rules = Admission(frozenset({os.getuid()}), admit=fail)
        async with Server(Endpoint(tmp_path / "xds.sock"), rules) as serving:
            before = descriptors()
            client = await SocketClient.connect(tmp_path / "xds.sock")
            await client.until(lambda: client.hung_up)
            assert serving.client is None
            assert failures == [f"cannot judge {os.getpid()}"]
            assert descriptors() == before

    run(scenario())


def test_a_descendant_that_holds_the_socket_of_an_ended_client_gets_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _FORK_AND_END, str(tmp_path / "xds.sock"), stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            assert output == b"closed"
            assert serving.client is None

    run(scenario())


_FORK_AND_END = """
import os, select, socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
client.connect(sys.argv[1])
greeting = client.recv(1000)
parent = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
select.select([parent], [], [], 10)
client.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
try:
    print("served" if client.recv(1000) else "closed", end="")
except ConnectionError:
    print("closed", end="")
"""


def test_no_descriptor_outlives_its_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with server(tmp_path) as serving:
            serving.publish(Snapshot.of(secret("a", b"1")))
            counts = []
            for _ in range(3):
                client = await SocketClient.connect(tmp_path / "xds.sock")
                await client.subscribed("a")
                serving.publish(serving.snapshot)
                client.transport.abort()
                publication = serving.publish(Snapshot.of(secret("a", os.urandom(4))))
                await publication.acknowledged(5)
                counts.append(descriptors())
            assert len(set(counts)) == 1

    run(scenario())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
