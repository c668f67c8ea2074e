"""The exporters that settings ask for, around a program's life. What is not asked for is not even imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from telemetry.recorder import Recorder
from telemetry.settings import TelemetrySettings


@asynccontextmanager
async def exported(recorder: Recorder, settings: TelemetrySettings) -> AsyncIterator[None]:
    """Raises Unavailable (nobody can listen there) and InvalidConfiguration, at the beginning only."""
    async with AsyncExitStack() as stack:
        if settings.listen:
            from telemetry.scraping import served

            await stack.enter_async_context(served(recorder, settings.listen))
        if settings.otlp is None:
            yield
            return
        from telemetry.shipping import Shipping

        shipping = Shipping(recorder, settings.otlp)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(shipping.run(), name="telemetry")
            try:
                yield
            finally:
                running.cancel()
