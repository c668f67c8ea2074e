"""Metrics and traces to an OTLP collector, every so often. What it cannot send it gives up, counted; it never waits
for longer than a deadline, and never ends the program.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path

import aiohttp

from attestation.errors import InvalidConfiguration
from telemetry import metrics, otlp
from telemetry.recorder import MOST_TRACES, Recorder, Spans
from telemetry.settings import OtlpSettings

DEADLINE = 5.0
"""Seconds one request may take, connecting and answering included."""
_AT_ONCE = 8
"""Traces encoded without a break: about 0.2 ms, which a closing may have to wait for."""


class Shipping:
    """Sends what one recorder holds. Raises InvalidConfiguration when the headers cannot be read."""

    def __init__(self, recorder: Recorder, settings: OtlpSettings) -> None:
        self._recorder = recorder
        self._settings = settings
        self._headers = {"Content-Type": "application/x-protobuf", **_headers(settings.headers_file)}
        self._began_ns = time.time_ns()
        self._traces: deque[Spans] = deque(maxlen=MOST_TRACES)
        recorder.traces = self._traces

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers, trust_env=False) as http:
            while True:
                await asyncio.sleep(self._settings.interval)
                try:
                    await self._ship(http)
                except Exception:  # noqa: BLE001 - an edge: whatever a collector does to us, the program goes on
                    self._recorder.count(metrics.DROPPED, "export")

    async def _ship(self, http: aiohttp.ClientSession) -> None:
        request = otlp.metrics_request(self._recorder, began_ns=self._began_ns, now_ns=time.time_ns())
        await self._post(http, "/v1/metrics", request)
        while self._traces:
            await self._post(http, "/v1/traces", await self._encoded())

    async def _encoded(self) -> bytes:
        """Some of the traces that wait, taken out: one that a collector chokes on is not sent again and again."""
        boot_ns = int((time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) * 1e9)
        parts = []
        for _ in range(MOST_TRACES // _AT_ONCE):
            some = [self._traces.popleft() for _ in range(min(_AT_ONCE, len(self._traces)))]
            if not some:
                break
            parts.append(otlp.traces_request(self._recorder, some, boot_ns=boot_ns))
            await asyncio.sleep(0)
        return b"".join(parts)

    async def _post(self, http: aiohttp.ClientSession, path: str, body: bytes) -> None:
        url = self._settings.endpoint + path
        # Nothing in the answer but its status is read, and no other address is followed to.
        async with http.post(url, data=body, allow_redirects=False) as answer:
            if answer.status >= 300:
                self._recorder.count(metrics.DROPPED, "export")


def _headers(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(
            f"the headers cannot be read: {error}", where=str(file), mend="Lines of `Name: value`."
        ) from error
    found = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or not line.isprintable():
            raise InvalidConfiguration("this is no header", where=f"{file}:{number}", mend="Lines of `Name: value`.")
        found[name.strip()] = value.strip()
    return found
