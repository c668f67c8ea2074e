"""An authority of another release behind the admin socket: what it answers is taken whole, or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from attestation.errors import Unavailable
from proofbeat import admin


async def asked(socket: Path, said: bytes, status: int = 200) -> str:
    """What asking for a token comes to when the authority says this."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=said, status=status)

    app = web.Application()
    app.add_routes([web.post("/admin/tokens", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket)).start()
        return await admin.create_token(socket, "web")
    finally:
        await runner.cleanup()


def test_an_answer_of_the_known_shape_is_taken(tmp_path: Path) -> None:
    assert asyncio.run(asked(tmp_path / "admin.sock", b'{"token": "t"}')) == "t"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b'{"token": "t", "also": 1}', 200),
        (b"{}", 200),
        (b'{"token": 7}', 200),
        (b'["token"]', 200),
        (b"token", 200),
        (b"token", 500),
    ],
)
def test_an_answer_of_another_shape_is_refused_and_says_what_to_ask_with(
    tmp_path: Path, said: bytes, status: int
) -> None:
    with pytest.raises(Unavailable, match="none that this release knows") as refused:
        asyncio.run(asked(tmp_path / "admin.sock", said, status))
    assert (refused.value.where, "`proofbeat` that runs the authority" in refused.value.mend) == (
        str(tmp_path / "admin.sock"),
        True,
    )
