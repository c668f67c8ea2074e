"""What a client is told over a real Unix socket: in which order, how much of it, and how its streams end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.xds.grpc_client import DELTA_AGGREGATED, SECRETS, STREAM_SECRETS, SocketClient
from tests.unit.xds.stage import CLUSTER, LISTENER, Stage, play, secret, serving
from xds.errors import GrpcStatus
from xds.messages import encode_discovery
from xds.snapshot import Resource, Snapshot


def test_aggregated_streams_get_clusters_before_listeners_and_removals_last(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream = client.grpc.open(DELTA_AGGREGATED)
        client.grpc.subscribe(stream, type_url=LISTENER)
        client.grpc.subscribe(stream, type_url=CLUSTER)
        client.flush()
        await client.told(stream, 2)
        at.server.publish(Snapshot.of(Resource.of(CLUSTER, "new", b""), Resource.of(LISTENER, "l", b"2")))
        await client.told(stream, 5)
        assert [(told.type_url, told.names, told.removed) for told in client.said(stream)[2:]] == [
            (CLUSTER, ("new",), ()),
            (LISTENER, ("l",), ()),
            (CLUSTER, (), ("old",)),
        ]
        at.server.publish(Snapshot.EMPTY)
        await client.told(stream, 7)
        gone = [(told.type_url, told.removed) for told in client.said(stream)[5:]]
        assert gone == [(LISTENER, ("l",)), (CLUSTER, ("new",))], "what refers goes before what it refers to"
        nonces = [told.nonce for told in client.said(stream)]
        assert len(set(nonces)) == len(nonces)

    play(tmp_path, scene, Resource.of(CLUSTER, "old", b""), Resource.of(LISTENER, "l", b"1"))


def test_a_heartbeat_resends_in_full_what_has_a_lifetime(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream_a, _ = await client.subscribed("a")
        await client.subscribed("b")
        assert at.server.heartbeat() == 1
        told = await client.told(stream_a, 2)
        assert (told.names, told.bodies) == (("a",), (b"1",))
        client.answer(stream_a, told)
        await client.subscribed("b")  # its answer proves that what was sent before has been read
        assert [verdict.heartbeat for verdict in at.verdicts] == [True]

    play(tmp_path, scene, secret("a", b"1", ttl=3), secret("b", b"1"))


def test_a_client_that_does_not_read_costs_one_response_and_gets_the_newest_afterwards(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, _ = await client.subscribed("a")
        client.transport.pause_reading()
        publications = [at.server.publish(Snapshot.of(secret("a", b"%d" % number * 200_000))) for number in range(20)]
        assert publications[-2].settlement().superseded, "what was never written is overtaken"
        client.transport.resume_reading()
        newest = b"19" * 200_000
        await client.until(lambda: any(newest in told.bodies for told in client.said(stream)))
        assert len(client.said(stream)) < 8, "most of the rest was never sent"

    play(tmp_path, scene, secret("a", b"first"))


def test_from_a_client_that_does_not_read_nothing_more_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, secret("a", b"first"), secret("b", b"0")) as at:
            client = await at.connect(window=2**31 - 1)
            client.grpc.h2.increment_flow_control_window(2**31 - 1 - 65_535)
            await client.subscribed("a")
            client.transport.pause_reading()
            at.server.publish(at.server.snapshot.replacing(secret("a", bytes(4_000_000))))
            for _ in range(40_000):
                client.grpc.h2.ping(bytes(8))
            client.flush()
            other = await at.connect()
            for _ in range(20):
                await other.subscribed("b")  # time for the server to read whatever it is willing to read
            assert client.transport.get_write_buffer_size() > 0
            client.transport.resume_reading()
            await client.until(lambda: client.transport.get_write_buffer_size() == 0)

    asyncio.run(scenario())


def test_a_request_for_another_type_ends_the_stream(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream = client.grpc.open()
        client.grpc.subscribe(stream, "a", type_url=LISTENER)
        client.flush()
        assert await client.status(stream) == GrpcStatus.INVALID_ARGUMENT
        assert at.server.streams == 0

    play(tmp_path, scene)


def test_a_lifetime_published_to_a_sotw_stream_ends_that_stream_only(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        sotw = client.grpc.open(STREAM_SECRETS)
        client.grpc.send(sotw, encode_discovery("DiscoveryRequest", type_url=SECRETS, resource_names=["a"]))
        delta, _ = await client.subscribed("a")
        at.server.publish(Snapshot.of(secret("a", b"2", ttl=3)))
        assert (await client.told(delta, 2)).bodies == (b"2",)
        assert await client.status(sotw) == GrpcStatus.FAILED_PRECONDITION

    play(tmp_path, scene, secret("a", b"1"))


def test_closing_ends_streams_with_unavailable_and_removes_the_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, secret("a", b"1")) as at:
            client = await at.connect()
            stream, _ = await client.subscribed("a")
        await client.until(lambda: client.hung_up)
        assert await client.status(stream) == GrpcStatus.UNAVAILABLE
        assert not at.path.exists()

    asyncio.run(scenario())


def test_a_socket_whose_file_is_gone_is_made_again_and_open_connections_go_on(tmp_path: Path) -> None:
    async def scene(at: Stage, client: SocketClient) -> None:
        stream, _ = await client.subscribed("a")
        told: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(at.server.keep_listening(told.put_nowait, every=0.01))
            at.path.unlink()
            assert "there is a new one" in await told.get()
            await (await at.connect()).subscribed("a")
            at.server.publish(Snapshot.of(secret("a", b"2")))
            await client.until(lambda: client.said(stream)[-1].bodies == (b"2",))
            looking.cancel()

    play(tmp_path, scene, secret("a", b"1"))
