"""The authority dies by SIGKILL and comes back: what it acknowledged it still knows, and clients hardly notice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestation.breakglass import from_text
from attestation.errors import Refused
from attestation.violation import ViolationClass
from authority.api.answers import GlassBroken, GlassMended, GlassOrders
from authority.app import Listening
from proofbeat import admin
from tests.system.authority.glass import glass_policies, signed
from tests.system.authority.town import TRUST_DOMAIN, Attester, holding, numbered, policies, refusal
from wire.messages import Report
from wire.session import AuthorityClient, Endpoint, JoinToken, Ticket

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from authority.app import Authority
from tests.system.authority.town import configured

folder, listen = Path(sys.argv[1]), sys.argv[2]

async def main():
    authority = Authority(configured(folder, listen))
    def ready(where):
        (folder / "bundle.pem").write_text(where.bundle)
        print(where.url, flush=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(authority.run(ready))
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await authority.create_token(line.strip()), flush=True)

asyncio.run(main())
"""


class Program:
    """The authority in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, where: Listening) -> None:
        self._process = process
        self.where = where

    async def token(self) -> JoinToken:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"web\n")
        return JoinToken((await self._process.stdout.readline()).decode().strip())

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


@contextlib.asynccontextmanager
async def program(folder: Path, listen: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        str(folder),
        listen,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    assert url, "the authority did not start"
    one = Program(process, Listening(url, TRUST_DOMAIN, (folder / "bundle.pem").read_text(), folder / "admin.sock"))
    try:
        yield one
    finally:
        if process.returncode is None:
            await one.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def attester_of(where: Listening) -> Attester:
    client = AuthorityClient(Endpoint(where.url, where.trust_domain, where.bundle), lambda _: None, timeout=10.0)
    return Attester(client, numbered(1))


def test_what_was_acknowledged_outlives_a_kill_and_outstanding_nonces_stay_good(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(policies())
    listen = f"127.0.0.1:{free_port()}"

    async def story() -> None:
        async with program(tmp_path, listen) as first:
            one = attester_of(first.where)
            await one.enrol(await first.token())
            async with holding(one):
                signed = one.signed()
                answer = await one.send(signed)
                await first.kill()
                async with program(tmp_path, listen):
                    # The session comes back by itself; the same evidence gets the same answer.
                    async with asyncio.timeout(20):
                        await one.client.wait_connected()
                    prefetched = one.held
                    again = await one.send(signed)
                    assert (again.ear, again.chain) == (answer.ear, answer.chain)
                    # The nonce that came before the kill is as good as ever.
                    one.nonce = prefetched
                    assert (await one.round()).chain != ""

    asyncio.run(story())


def test_a_break_glass_order_and_its_end_outlive_a_kill(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(glass_policies())
    listen, text = f"127.0.0.1:{free_port()}", signed()
    identity = from_text(text).order.id

    async def standing(where: Program) -> str:
        orders = (await admin.ask(where.where.admin, "GET", "/admin/breakglass", GlassOrders)).orders
        return next(each.standing for each in orders if each.id == identity)

    async def story() -> None:
        async with program(tmp_path, listen) as first:
            await admin.ask(first.where.admin, "POST", "/admin/breakglass", GlassBroken, {"order": text})
            await first.kill()
        async with program(tmp_path, listen) as second:
            assert await standing(second) == "in force"
            await admin.ask(second.where.admin, "POST", "/admin/breakglass/end", GlassMended, {"id": identity})
            await second.kill()
        async with program(tmp_path, listen) as third:
            assert await standing(third) == "ended"
            with pytest.raises(Refused, match="has ended"):
                await admin.ask(third.where.admin, "POST", "/admin/breakglass", GlassBroken, {"order": text})

    asyncio.run(story())


def test_a_tamper_that_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(policies())
    listen = f"127.0.0.1:{free_port()}"

    async def story() -> None:
        async with program(tmp_path, listen) as first:
            one = attester_of(first.where)
            enrolment = await one.enrol(await first.token())
            async with holding(one, session=False):
                await one.client.report(Report(1, ViolationClass.TAMPER, "a foreign program ran", 5))
                await first.kill()
        async with program(tmp_path, listen) as second:
            back = attester_of(second.where)
            assert (await back.enrol(Ticket(enrolment.ticket))).standing.quarantined
            async with holding(back, session=False):
                back.generation = 1
                assert (await refusal(back.round())).kind == "instance-quarantined"

    asyncio.run(story())
