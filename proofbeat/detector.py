"""`proofbeat detector`: what connects somebody else's detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attestation.detectors.alerts import Detector

detector = typer.Typer(help="Alerts of Falco and Tetragon.", no_args_is_help=True)


@detector.callback()
def group() -> None:
    """A group even while it has one command."""


@detector.command()
def feed(
    to: Annotated[Path, typer.Option("--to", help="The sidecar's `detectors.socket`.")],
    of: Annotated[
        Detector | None, typer.Option("--of", help="Whose alerts these are, said before the first one comes.")
    ] = None,
) -> None:
    """Relay what comes on stdin, a line an alert, until it ends: for Falco's `program_output`, and behind `tetra`.

    Says on stderr what is not taken, and ends with 1 where not all of it was.
    """
    import sys

    from proofbeat.feeding import feed as run

    sys.exit(run(to, of))
