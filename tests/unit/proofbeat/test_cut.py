"""`bench cut`: what its report says of ends that were not seen, and that its client and service speak of the same."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from proofbeat.bench.cut import service
from proofbeat.bench.cut.holder import DROP, Kind, Order
from proofbeat.bench.cut.run import Case, Sample, last_connection_ended, report
from proofbeat.ephemeral.clock import now

COUNT = 20
ADDRESS = "127.0.0.1"


def _line(**said: object) -> str:
    told = {"listener": "inbound-8443", "event": "connection", "start": "1970-01-01T00:00:10.500Z", "duration_ms": 800}
    return json.dumps({**told, **said})


def test_of_a_listeners_log_only_connections_that_were_open_at_the_act_count() -> None:
    lines = [
        _line(duration_ms=700),
        _line(),
        _line(start="1970-01-01T00:00:11.100Z", duration_ms=5000),
        _line(duration_ms=100),
        _line(listener="inbound-8444", duration_ms=9000),
        _line(event="request", duration_ms=9000),
        _line(duration_ms=9000)[:-5],
    ]
    assert last_connection_ended(lines, "inbound-8443", 11.0) == pytest.approx(11.3)
    assert last_connection_ended(lines[3:], "inbound-8443", 11.0) is None


def test_a_connection_that_was_never_cut_breaks_the_budget_although_its_time_is_unknown() -> None:
    case = Case("sds", Kind.TCP, 100, 2)
    good, open_still = Sample(5.0, 6.0, 0.0, 0), Sample(5.0, None, 0.0, 1)
    assert [budget.holds for budget in report([(case, [good, good])]).budgets] == [True, True]
    assert [budget.holds for budget in report([(case, [good, open_still])]).budgets] == [False, False]


def test_the_budget_is_about_the_later_of_both_ends_and_each_mode_and_kind_has_its_own() -> None:
    quick, late = Sample(5.0, 6.0, 0.0, 0), Sample(5.0, 21.0, 0.0, 0)
    cases = [Case("sds", Kind.TCP, 100, 1), Case("sds", Kind.KEPT, 100, 1), Case("xds", Kind.TCP, 100, 1)]
    found = report(list(zip(cases, ([quick], [late], [quick]), strict=True)))
    assert [budget.holds for budget in found.budgets] == [True, False, True, True]


def test_an_end_that_cannot_be_seen_is_no_figure() -> None:
    found = report([(Case("sds", Kind.KEPT, 1, 1), [Sample(5.0, None, 0.0, 0)])])
    assert set(found.figures) == {"sds_http1_1_cut_on_own_side", "sds_http1_1_last_new_connection_served"}


@pytest.mark.parametrize("kind", list(Kind))
def test_the_client_holds_so_many_and_sees_each_of_them_end(kind: Kind) -> None:
    asyncio.run(_until_the_service_is_killed(kind))


@pytest.mark.parametrize("kind", [Kind.TCP, Kind.STREAM, Kind.WEBSOCKET])
def test_the_service_tells_when_the_last_held_one_has_ended(kind: Kind) -> None:
    asyncio.run(_until_the_client_drops(kind))


def test_a_client_that_is_refused_says_so_and_takes_the_next_order() -> None:
    asyncio.run(_refused_at_first())


async def _refused_at_first() -> None:
    async with asyncio.timeout(30):
        with _free_ports() as (http, tcp):
            client = await _started("-P", "-m", "proofbeat.bench.cut.holder")
        assert client.stdin is not None
        client.stdin.write(Order(Kind.TCP, ADDRESS, tcp, COUNT).dump())
        assert "refused" in await _told(client)
        web = await _started(service.__file__, "web", ADDRESS, str(http), str(tcp))
        assert web.stdout is not None
        assert await web.stdout.readline() == b"web serves\n"
        client.stdin.write(Order(Kind.TCP, ADDRESS, tcp, COUNT, attempt=1).dump())
        assert await _told(client) == {"held": COUNT}
        await _end(web, client)


async def _until_the_service_is_killed(kind: Kind) -> None:
    async with asyncio.timeout(30):
        web, client = await _held(kind)
        before = now()
        web.kill()
        told = await _told(client)
        assert (told["ended"], told["left"]) == (COUNT, 0)
        assert before <= told["last"] <= now()
        await _end(web, client)


async def _until_the_client_drops(kind: Kind) -> None:
    async with asyncio.timeout(30):
        web, client = await _held(kind)
        before = now()
        assert client.stdin is not None
        client.stdin.write(DROP)
        assert (await _told(client))["left"] == COUNT
        told = await _told(web)
        assert told["ended"] == COUNT
        assert before <= told["last"] <= now()
        await _end(web, client)


async def _held(kind: Kind) -> tuple[asyncio.subprocess.Process, asyncio.subprocess.Process]:
    """A service and a client with all connections open."""
    with _free_ports() as (http, tcp):
        pass
    web = await _started(service.__file__, "web", ADDRESS, str(http), str(tcp))
    assert web.stdout is not None
    assert await web.stdout.readline() == b"web serves\n"
    client = await _started("-P", "-m", "proofbeat.bench.cut.holder")
    assert client.stdin is not None
    client.stdin.write(Order(kind, ADDRESS, tcp if kind is Kind.TCP else http, COUNT).dump())
    assert await _told(client) == {"held": COUNT}
    return web, client


async def _started(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)


async def _told(process: asyncio.subprocess.Process) -> dict[str, float]:
    assert process.stdout is not None
    said: dict[str, float] = json.loads(await process.stdout.readline())
    return said


async def _end(*processes: asyncio.subprocess.Process) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextmanager
def _free_ports() -> Iterator[tuple[int, int]]:
    with socket.create_server((ADDRESS, 0)) as one, socket.create_server((ADDRESS, 0)) as other:
        yield one.getsockname()[1], other.getsockname()[1]
