"""An instance that is quarantined, and goes on as if it were not: with its certificate it calls, and is called.

Its own sidecar would have closed it; here it has none. What is left is what its peers do, and they refuse it alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestation.violation import ViolationClass
from tests.system.attacks.stage import Scene, scene
from tests.system.authority.test_admin import ask
from tests.system.authority.town import Attester, holding, policies, stranger
from tests.system.xds.denying import replica as replica_of
from tests.system.xds.denying import until_cut
from tests.system.xds.pki import Leaf, client_context, server_context
from tests.system.xds.rig import ENVOY, LOCALHOST, PATIENCE, REFUSED, Answer, Caller, application, call_once, free_port
from wire.messages import Report
from wire.session import JoinToken
from xds.bootstrap import Bootstrap, envoy_bootstrap, envoy_command, write_bootstrap
from xds.resources.service import HostPort, Inbound, Service, Upstream
from xds.resources.transport import Identities

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: open connections are ended by SOCK_DESTROY")

SHOP = "spiffe://town.example/shop"
SHOPS = (
    policies()
    .replace(": web", ": shop")
    .replace("/web", "/shop")
    .replace("  mode:", "  selector: {registrations: [shop, api]}\n  mode:")
)
"""A registration of its own for two callers that are also peers."""
TAMPER = Report(1, ViolationClass.TAMPER, "a foreign program was executed", 1_700_000_000_000)
Mode = Literal["sds", "xds"]


@dataclass(frozen=True)
class Ports:
    """http, tcp: where peers call us. out: where we call the shops, which listen at `shops`."""

    http: int
    tcp: int
    out: int
    shops: tuple[int, int]

    @classmethod
    def free(cls) -> Ports:
        return cls(free_port(), free_port(), free_port(), (free_port(), free_port()))

    def settings(self, app: int, mode: Mode) -> dict[str, Any]:
        peers = [f"{LOCALHOST}:{port}" for port in self.shops]
        return {"mode": "sds", "peers": peers} if mode == "sds" else self._delivered(app, peers)

    def _delivered(self, app: int, peers: list[str]) -> dict[str, Any]:
        """Of an Envoy that is delivered everything."""
        inbound = [
            {"listen": f"{LOCALHOST}:{port}", "app": f"{LOCALHOST}:{app}", "protocol": protocol, "callers": [SHOP]}
            for port, protocol in ((self.http, "http"), (self.tcp, "tcp"))
        ]
        upstream = {"name": "shop", "listen": f"{LOCALHOST}:{self.out}", "peers": peers, "identities": [SHOP]}
        return {
            "mode": "xds",
            "service": {
                "bootstrap": "envoy.json",
                "admin": "admin.sock",
                "accessLog": "access.log",
                "inbound": inbound,
                "upstreams": [{**upstream, "protocol": "tcp"}],
            },
        }

    def bootstrap(self, folder: Path, app: int) -> Bootstrap:
        """Of an Envoy that is somebody else's."""
        here, shops = HostPort(LOCALHOST, app), Identities(exact=(SHOP,))
        peers = tuple(HostPort(LOCALHOST, port) for port in self.shops)
        service = Service(
            folder / "access.log",
            (
                Inbound(HostPort(LOCALHOST, self.http), here, "http", shops),
                Inbound(HostPort(LOCALHOST, self.tcp), here, "tcp", shops),
            ),
            (Upstream("shop", HostPort(LOCALHOST, self.out), peers, "tcp", shops),),
        )
        return Bootstrap("web", "web", folder / "xds.sock", folder / "admin.sock", service, "refuse")


@dataclass(frozen=True)
class Shop:
    """One instance of two: what it attests, and what it holds."""

    attester: Attester
    leaf: Leaf
    context: ssl.SSLContext


@dataclass(frozen=True)
class Play:
    """at: our own side. app: where our workload listens. good, bad: two instances of one identity."""

    at: Scene
    ports: Ports
    app: int
    good: Shop
    bad: Shop


def played(mode: Mode, story: Callable[[Play], Coroutine[Any, Any, None]]) -> None:
    ports, app = Ports.free(), free_port()
    with scene(delivery=ports.settings(app, mode), also=SHOPS) as at:
        at.until("started")
        folder = at.folder / "keys"
        if mode == "sds":
            write_bootstrap(envoy_bootstrap(ports.bootstrap(folder, app)), folder / "envoy.json")

        async def scenario() -> None:
            async with (
                application(port=app),
                _shop(at, 1, ports.shops[0]) as bad,
                _shop(at, 2, ports.shops[1]) as good,
            ):
                with _envoy(folder):
                    await story(Play(at, ports, app, good, bad))

        asyncio.run(scenario())


@contextmanager
def _envoy(folder: Path) -> Iterator[None]:
    with (folder / "envoy.log").open("wb") as log:
        command = envoy_command(ENVOY, folder / "envoy.json", concurrency=1)
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def _shop(at: Scene, number: int, port: int) -> AsyncIterator[Shop]:
    """Attested, listening, and known to listen there."""
    one = stranger(at.hall.town, number)
    await one.enrol(JoinToken(await asyncio.to_thread(at.hall.token, "shop")))
    async with holding(one):
        await one.client.reachable((f"{LOCALHOST}:{port}",))
        chain = (await one.round()).chain
        key = one.leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        leaf = Leaf(chain.encode(), key)
        bundle = at.hall.town.where.bundle.encode()
        server = await replica_of(str(number), server_context(leaf, bundle, at.folder), port)
        try:
            yield Shop(one, leaf, client_context(leaf, bundle, at.folder))
        finally:
            server.close()


@pytest.mark.parametrize("mode", ["sds", "xds"])
def test_peers_refuse_it_and_nobody_else_as_a_caller_and_as_a_peer(mode: Mode) -> None:
    async def story(play: Play) -> None:
        good, bad, ports = play.good, play.bad, play.ports
        calling = [await served(ports.http, each.context) for each in (good, bad)]
        streaming = [await served(ports.tcp, each.context) for each in (good, bad)]
        held = await both_shops(ports.out)

        standing = await bad.attester.client.report(TAMPER)
        answer = await calling[1].until_answer(lambda answer: answer.status == 403)
        name = standing.causes[0].id
        assert json.loads(answer.body)["detail"] == f"rbac_access_denied_matched_policy[peer-denied:{name}]"
        for ended in (held["1"], streaming[1]):
            with pytest.raises(REFUSED):
                await until_cut(ended)
        for port in (ports.http, ports.tcp):
            with pytest.raises(REFUSED):
                await call_once(port, bad.context)
            assert await call_once(port, good.context) == Answer(200, b"ok")
        assert [(await each.get()).status for each in (calling[0], streaming[0])] == [200, 200]
        assert (await held["2"].get()).body == b"2"
        assert await answers(ports.out) <= ({"2"} if mode == "xds" else {"2", ""})

        severed = await asyncio.to_thread(play.at.until, "severed")
        assert (severed["destroyed"] > 0, severed["left"]) == (True, 0)
        await carried_out(play.at)

        admin = play.at.hall.town.where.admin
        assert (await ask(admin, "POST", "/admin/release", {"instance": str(bad.attester.instance)}))[0] == 200
        for port in (ports.http, ports.tcp):
            await served(port, bad.context)
        await both_shops(ports.out)

    played(mode, story)


@pytest.mark.parametrize("mode", ["sds", "xds"])
def test_a_denied_one_that_says_that_it_listens_where_another_does_has_nobody_elses_connections_cut(
    mode: Mode,
) -> None:
    async def story(play: Play) -> None:
        theirs = await served(play.ports.tcp, play.good.context)
        mine, ours = f"{LOCALHOST}:{play.ports.shops[0]}", f"{LOCALHOST}:{play.app}"
        await play.bad.attester.client.reachable((mine, ours))
        await both_shops(play.ports.out)
        await play.bad.attester.client.report(TAMPER)
        severed = await asyncio.to_thread(play.at.until, "severed")
        assert mine in severed["addresses"]
        assert ours not in severed["addresses"]
        # Its connection goes on to our workload over one of Envoy's own.
        assert (await theirs.get()).status == 200

    played(mode, story)


async def carried_out(at: Scene) -> None:
    """The authority knows from our evidence that our Envoy carries out the list as it is."""
    admin = at.hall.town.where.admin
    _, list_in_force = await ask(admin, "GET", "/admin/denials")
    assert len(list_in_force["denied"]) == 1
    async with asyncio.timeout(PATIENCE):
        while True:
            _, known = await ask(admin, "GET", "/admin/instances")
            if [list_in_force["version"]] == [one["revocation"] for one in known["instances"] if one["revocation"]]:
                return
            await asyncio.sleep(0.05)


async def served(port: int, context: ssl.SSLContext) -> Caller:
    """A connection by which a request was answered, as soon as there is one: Envoy and its lease take their time."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                caller = await Caller.connect(port, context)
                if (await caller.get()).status == 200:
                    return caller
            except REFUSED:
                await asyncio.sleep(0.05)


async def both_shops(port: int) -> dict[str, Caller]:
    """A connection to each, by its name."""
    held: dict[str, Caller] = {}
    async with asyncio.timeout(PATIENCE):
        while len(held) < 2:
            caller = await Caller.connect(port)
            held[(await caller.get()).body.decode()] = caller
    return held


async def answers(port: int) -> set[str]:
    """Who answers, of several calls; empty for nobody."""
    return {await _answer(port) for _ in range(8)}


async def _answer(port: int) -> str:
    try:
        return (await call_once(port)).body.decode()
    except REFUSED:
        return ""
