"""What the commands of every group share: options of one meaning, and the way from an answer to an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="Settings, YAML.")]
AdminSocket = Annotated[Path, typer.Option("--admin", help="The authority's admin socket.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")]


def exit_with(program: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Exit code 1 when the program's answer is no."""
    from proofbeat import process

    answer: list[bool] = []

    async def asked() -> None:
        answer.append(await program())

    code = process.run(asked)
    sys.exit(code if code or answer == [True] else process.NO)
