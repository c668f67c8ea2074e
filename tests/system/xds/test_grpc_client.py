"""The xDS client inside gRPC, which knows nothing of Envoy or of us, finds its services by our server.

It runs in a process of its own, because the server admits one process. What it reaches are two small services here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ConfigSource,
    Locality,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import ApiListener, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy_data_plane.google.protobuf import Any

from tests.system.xds.rig import LOCALHOST, PATIENCE, Events, make_server
from xds.messages import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from xds.snapshot import Reference, Resource, Snapshot, type_url

SERVICE, ROUTE_TABLE, UPSTREAM = "service", "table", "upstream"
OVER_ADS = ConfigSource(ads=AggregatedConfigSource())
UNAVAILABLE = "UNAVAILABLE"

_CLIENT = """
import sys, grpc
channel = grpc.insecure_channel("xds:///service")
ask = channel.unary_unary("/test/Name")
for _ in sys.stdin:
    try:
        print(ask(b"", timeout=20).decode(), flush=True)
    except grpc.RpcError as refused:
        print(refused.code().name, flush=True)
"""


def packed(message: object, name: str) -> Any:
    return Any(type_url=type_url(name), value=bytes(message))  # type: ignore[call-overload]  # they type no __bytes__


def listener() -> Resource:
    router = HttpFilter(name="router", typed_config=packed(Router(), "envoy.extensions.filters.http.router.v3.Router"))
    manager = HttpConnectionManager(
        rds=Rds(config_source=OVER_ADS, route_config_name=ROUTE_TABLE), http_filters=[router]
    )
    name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    form = Listener(name=SERVICE, api_listener=ApiListener(api_listener=packed(manager, name)))
    return Resource.of(type_url(LISTENER), SERVICE, bytes(form), references=[Reference(type_url(ROUTES), ROUTE_TABLE)])


def routes(*, to: str = UPSTREAM, pattern: str | None = None) -> Resource:
    match = RouteMatch(prefix="") if pattern is None else RouteMatch(path=pattern)
    host = VirtualHost(name="all", domains=["*"], routes=[Route(match=match, route=RouteAction(cluster=to))])
    form = RouteConfiguration(name=ROUTE_TABLE, virtual_hosts=[host])
    return Resource.of(type_url(ROUTES), ROUTE_TABLE, bytes(form), references=[Reference(type_url(CLUSTER), to)])


def cluster(name: str = UPSTREAM) -> Resource:
    source = ClusterEdsClusterConfig(eds_config=OVER_ADS)
    form = Cluster(name=name, type=ClusterDiscoveryType.EDS, eds_cluster_config=source)
    return Resource.of(type_url(CLUSTER), name, bytes(form), references=[Reference(type_url(ENDPOINTS), name)])


def endpoints(port: int, name: str = UPSTREAM) -> Resource:
    address = Address(socket_address=SocketAddress(address=LOCALHOST, port_value=port))
    place = LocalityLbEndpoints(
        locality=Locality(zone="here"),
        load_balancing_weight=1,
        lb_endpoints=[LbEndpoint(endpoint=Endpoint(address=address))],
    )
    form = ClusterLoadAssignment(cluster_name=name, endpoints=[place])
    return Resource.of(type_url(ENDPOINTS), name, bytes(form))


def leading_to(port: int) -> Snapshot:
    return Snapshot.of(listener(), routes(), cluster(), endpoints(port))


@contextmanager
def service(name: str) -> Iterator[int]:
    """A gRPC service that says its name; gives its port."""

    def say(request: bytes, context: grpc.ServicerContext) -> bytes:
        return name.encode()

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(say)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Name": handler}),))
    port = server.add_insecure_port(f"{LOCALHOST}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(PATIENCE)


class Client:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self) -> str:
        """One call: the name of the service that answered, or the status of the failure."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"call\n")
        async with asyncio.timeout(2 * PATIENCE):
            return (await self._process.stdout.readline()).decode().strip()

    async def until(self, answer: str) -> None:
        """It acknowledges before its calls follow, and says nothing when they do."""
        async with asyncio.timeout(PATIENCE):
            while await self.call() != answer:  # noqa: ASYNC110 -- the other process has no event for us
                await asyncio.sleep(0.01)


@asynccontextmanager
async def grpc_client(socket: Path) -> AsyncIterator[Client]:
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": f"unix:{socket}",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": "grpc"},
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CLIENT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
    )
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


Story = Callable[[Path, Client, int, int], Awaitable[None]]


def told(folder: Path, story: Story) -> None:
    """A story of the client and the ports of two services, `one` and `two`."""

    async def scenario() -> None:
        with service("one") as one, service("two") as two:
            async with grpc_client(folder / "xds.sock") as client:
                await story(folder / "xds.sock", client, one, two)

    asyncio.run(scenario())


def test_it_finds_a_service_follows_its_endpoints_and_loses_it_with_its_listener(tmp_path: Path) -> None:
    async def story(socket: Path, client: Client, one: int, two: int) -> None:
        events = Events()
        async with make_server(socket, events) as server:
            server.publish(leading_to(one))
            assert await client.call() == "one"
            await events.accepted(SERVICE, ROUTE_TABLE, UPSTREAM)
            moved = server.publish(leading_to(two))
            assert (await moved.acknowledged(PATIENCE)).in_force
            await client.until("two")
            gone = server.publish(leading_to(two).without(Reference(type_url(LISTENER), SERVICE)))
            assert (await gone.acknowledged(PATIENCE)).in_force
            await client.until(UNAVAILABLE)
            server.publish(leading_to(one))
            await client.until("one")

    told(tmp_path, story)


def test_it_moves_to_another_cluster_without_a_failed_call(tmp_path: Path) -> None:
    async def story(socket: Path, client: Client, one: int, two: int) -> None:
        async with make_server(socket, Events()) as server:
            server.publish(leading_to(one))
            assert await client.call() == "one"
            moved = server.publish(
                Snapshot.of(listener(), routes(to="other"), cluster("other"), endpoints(two, "other"))
            )
            answers = {await client.call()}
            while "two" not in answers:
                answers.add(await client.call())
            assert answers <= {"one", "two"}, "no call fails on the way"
            await moved.acknowledged(PATIENCE)
            assert await client.call() == "two"

    told(tmp_path, story)


def test_what_it_rejects_is_reported_with_its_reason_and_the_old_stays_in_force(tmp_path: Path) -> None:
    async def story(socket: Path, client: Client, one: int, two: int) -> None:
        async with make_server(socket, Events()) as server:
            server.publish(leading_to(one))
            assert await client.call() == "one"
            broken = Resource.of(type_url(ROUTES), ROUTE_TABLE, b"\xff")
            refused = server.publish(leading_to(one).replacing(broken))
            (rejection,) = (await refused.acknowledged(PATIENCE)).rejected
            assert rejection.type_url == type_url(ROUTES)
            assert rejection.reason
            assert await client.call() == "one"

    told(tmp_path, story)


def test_a_server_that_comes_back_is_found_again_and_what_it_says_then_counts(tmp_path: Path) -> None:
    async def story(socket: Path, client: Client, one: int, two: int) -> None:
        async with make_server(socket, Events()) as server:
            server.publish(leading_to(one))
            assert await client.call() == "one"
        assert await client.call() == "one", "a client without its server keeps what it has"
        async with make_server(socket, Events()) as server:
            server.publish(leading_to(two))
            await client.until("two")

    told(tmp_path, story)
