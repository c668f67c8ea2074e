"""The folder that one run works in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attestation.errors import Unavailable

_MOST_BYTES = 80
"""So that there is room for a socket's name: the whole has to fit into 108 bytes (unix(7))."""


def make(kind: str) -> Path:
    """One that only its user may enter, named after what the run is. Raises Unavailable."""
    mend = "Set TMPDIR to a folder with a short path that you may write to."
    try:
        made = Path(tempfile.mkdtemp(prefix=f"proofbeat-{kind}-"))
    except OSError as error:
        where = str(error.filename or "TMPDIR")
        raise Unavailable(f"no folder to work in can be made: {error.strerror}", where=where, mend=mend) from error
    if len(os.fsencode(made)) > _MOST_BYTES:
        made.rmdir()
        raise Unavailable("no socket can be bound below so long a path", where=str(made.parent), mend=mend)
    return made


@contextmanager
def passing(kind: str) -> Iterator[Path]:
    """One that is there for the block alone. Raises Unavailable."""
    folder = make(kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
