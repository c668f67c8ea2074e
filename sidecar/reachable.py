"""Where our Envoy listens, told to the authority: what peers lose when it is not to be called any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attestation.errors import InvalidInput, Refused, Unavailable
from sidecar.retries import Retries
from wire.session import AuthorityClient


async def announce(client: AuthorityClient, addresses: tuple[str, ...], refused: Callable[[str], None]) -> None:
    """Until the authority has it on disk, or refuses it, which `refused` is told.

    Not before a session is up: what version the authority speaks is known by then.
    """
    retries = Retries()
    while addresses:
        await client.wait_connected()
        try:
            await client.reachable(addresses)
        except (Unavailable, InvalidInput):
            await asyncio.sleep(retries.pause())
        except Refused as error:
            refused(error.sentence)
            return
        else:
            return
