"""Exporters against whoever may be at the other end: they give up, count it, and harm nothing."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from attestation.errors import InvalidConfiguration, Unavailable
from telemetry import metrics, scraping
from telemetry.exporting import exported
from telemetry.recorder import Recorder, Spans
from telemetry.scraping import MOST_SCRAPES, served
from telemetry.settings import OtlpSettings, TelemetrySettings


async def asked(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def dropped(made: Recorder, what: str) -> float:
    families = {family.metric: family for family in made.families()}
    return next(point.value for point in families[metrics.DROPPED].points if point.labels == (what,))


def exporting_to(endpoint: str, headers: Path | None = None) -> TelemetrySettings:
    """Ten times a second."""
    otlp = OtlpSettings.model_validate({"endpoint": endpoint, "headers_file": headers, "interval": "100ms"})
    return TelemetrySettings(otlp=otlp)


async def eventually(holds: Callable[[], bool]) -> None:
    """A recorder is asked, it tells nobody by itself."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200"),
        (b"HEAD /metrics HTTP/1.0", b"200"),
        (b"GET /metrics?name[]=x HTTP/1.1", b"200"),
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"\x16\x03\x01", b"405"),
        (b"", b"405"),
    ],
)
def test_only_metrics_are_served(tmp_path: Path, request_line: bytes, status: bytes) -> None:
    async def story() -> None:
        path = tmp_path / "run" / "metrics.sock"
        async with served(Recorder("sidecar"), f"unix:{path}"):
            assert path.stat().st_mode & 0o777 == 0o600
            answer = await asked(path, request_line + b"\r\nHost: x\r\n\r\n")
            assert answer.split()[1] == status
            body = answer.partition(b"\r\n\r\n")[2]
            assert (b"proofbeat_rounds_total" in body) == (status == b"200" and not request_line.startswith(b"HEAD"))
        assert not path.exists()

    asyncio.run(story())


def test_whoever_connects_and_says_nothing_leaves_room_for_a_bounded_number_only(tmp_path: Path) -> None:
    async def story() -> None:
        made, path = Recorder("sidecar"), tmp_path / "metrics.sock"
        async with served(made, f"unix:{path}"):
            silent = [await asyncio.open_unix_connection(str(path)) for _ in range(MOST_SCRAPES)]
            assert await _quietly(path) == b""
            assert dropped(made, "scrape") == 1
            for _, writer in silent:
                writer.close()
            while not (await _quietly(path)).startswith(b"HTTP/1.1 200"):
                pass

    asyncio.run(story())


async def _quietly(path: Path) -> bytes:
    try:
        return await asked(path, b"GET /metrics HTTP/1.1\r\n\r\n")
    except ConnectionError:
        return b""


def test_a_request_without_an_end_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "DEADLINE", 3600.0)

    async def story() -> None:
        made, path = Recorder("sidecar"), tmp_path / "metrics.sock"
        async with served(made, f"unix:{path}"), asyncio.timeout(20):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 100_000)
            assert await _ended(reader)
            writer.close()
            assert dropped(made, "scrape") == 1

    asyncio.run(story())


def test_a_reader_that_never_ends_is_hung_up_on_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "DEADLINE", 0.05)

    async def story() -> None:
        made, path = Recorder("sidecar"), tmp_path / "metrics.sock"
        async with served(made, f"unix:{path}"), asyncio.timeout(20):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"GET /metrics")
            assert await _ended(reader)
            writer.close()
            assert dropped(made, "scrape") == 1

    asyncio.run(story())


async def _ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "metrics.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with served(Recorder("sidecar"), f"unix:{path}"):
            with pytest.raises(Unavailable, match="somebody else answers there"):
                await served(Recorder("sidecar"), f"unix:{path}").__aenter__()
            assert (await asked(path, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")

    asyncio.run(story())


def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            with pytest.raises(Unavailable) as refused:
                await served(Recorder("sidecar"), f"127.0.0.1:{other.getsockname()[1]}").__aenter__()
            assert "Name another socket or port" in refused.value.sentence

    asyncio.run(story())


async def _status(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\n\r\n")


async def _garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(os.urandom(5000))


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 No\r\n" + b"X: y\r\n" * 100_000)


HOSTILE: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "refuses": lambda writer: _status(writer, b"403 Forbidden"),
    "sends-elsewhere": lambda writer: _status(writer, b"302 Found\r\nLocation: /elsewhere"),
    "talks-garbage": _garbage,
    "talks-without-end": _endless,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_collector_that_misbehaves_costs_exports_and_nothing_else(kind: str) -> None:
    async def story() -> None:
        paths: list[bytes] = []
        good = False

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"Content-Length: (\d+)", head):
                await reader.readexactly(int(length[1]))
            paths.append(head.split()[1])
            await (_status(writer, b"200 OK") if good else HOSTILE[kind](writer))
            writer.close()

        collector = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = collector.sockets[0].getsockname()
        made = Recorder("sidecar")
        settings = exporting_to(f"http://{host}:{port}")
        async with collector, asyncio.timeout(20), exported(made, settings):
            await eventually(lambda: dropped(made, "export") >= 2)
            good = True
            made.traced(lambda: Spans(metrics.Trace.ROUND, b"t" * 16, 1.0, (("nonce", 2.0),)))
            await eventually(lambda: b"/v1/traces" in paths)
        assert b"/elsewhere" not in paths

    asyncio.run(story())


def test_nobody_there_is_counted_and_what_waits_is_bounded() -> None:
    async def story() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            made = Recorder("authority")
            endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
            settings = exporting_to(endpoint)
            async with asyncio.timeout(20), exported(made, settings):
                for _ in range(600):
                    made.traced(lambda: Spans(metrics.Trace.APPRAISAL, b"t" * 16, 1.0, ()))
                assert dropped(made, "trace") == 88
                await eventually(lambda: dropped(made, "export") >= 2)

    asyncio.run(story())


def test_headers_come_from_a_file_and_a_mistake_in_it_is_named(tmp_path: Path) -> None:
    async def story(text: str) -> bytes:
        heads: asyncio.Queue[bytes] = asyncio.Queue()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.put_nowait(await reader.readuntil(b"\r\n\r\n"))
            await _status(writer, b"200 OK")

        file = tmp_path / "headers"
        file.write_text(text)
        collector = await asyncio.start_server(answer, "127.0.0.1", 0)
        endpoint = f"http://127.0.0.1:{collector.sockets[0].getsockname()[1]}"
        async with collector, asyncio.timeout(20), exported(Recorder("sidecar"), exporting_to(endpoint, file)):
            return await heads.get()

    assert b"X-Key: s3cret" in asyncio.run(story("X-Key: s3cret\n\n"))
    with pytest.raises(InvalidConfiguration, match="headers:1"):
        asyncio.run(story("no header"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen": "metrics.sock"}, "listen"),
        ({"otlp": {"endpoint": "collector:4318"}}, "http:// or https://"),
        ({"otlp": {"endpoint": "https://user:secret@collector"}}, "headersFile"),
        ({"otlp": {"endpoint": "http://collector:4318", "headersFile": "h"}}, "https:// endpoint"),
        ({"otlp": {"endpoint": "http://127.0.0.1:1", "interval": 10}}, "duration"),
        ({"lisen": ""}, "lisen"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TelemetrySettings.model_validate(settings)


def test_paths_count_from_a_folder_where_a_program_says_so(tmp_path: Path) -> None:
    made = TelemetrySettings.model_validate(
        {"listen": "unix:run/m.sock", "otlp": {"endpoint": "https://c", "headersFile": "h"}}
    ).below(tmp_path)
    assert made.listen == f"unix:{tmp_path}/run/m.sock"
    assert made.otlp is not None
    assert made.otlp.headers_file == tmp_path / "h"
