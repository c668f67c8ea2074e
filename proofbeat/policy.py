"""`proofbeat policy ...`: documents checked, explained, tried and compared before an authority reads them."""

from __future__ import annotations

from pathlib import Path

import typer

from proofbeat.options import exit_with

policy = typer.Typer(help="Policy documents.", no_args_is_help=True)


@policy.command("check")
def policy_check(paths: list[Path]) -> None:
    """Read policy documents as the authority would; the first fault is named with file, line and column."""
    from proofbeat.operate import check_policies as run

    exit_with(lambda: run(paths))
