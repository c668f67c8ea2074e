"""Looks again whenever something changes, and once in a while where the time itself changes something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from attestation.errors import Unavailable

_LOOK = 1.0
"""Seconds between two looks while there is something that time changes."""


async def keep_looking(
    changed: asyncio.Event,
    look: Callable[[], Awaitable[None]],
    *,
    timed: Callable[[], object],
    late: Callable[[Unavailable], object],
    breath: float = 0.0,
) -> None:
    """Until cancelled. A store that does not answer is asked again.

    timed: true while time changes something. late: told of a look that failed. breath: seconds after each look.
    """
    while True:
        try:
            async with asyncio.timeout(_LOOK if timed() else None):
                await changed.wait()
        except TimeoutError:
            pass
        changed.clear()
        try:
            await look()
        except Unavailable as error:
            late(error)
        await asyncio.sleep(breath)
