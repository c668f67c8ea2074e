"""Standard output, and what happens when nobody reads it any more: `proofbeat up -- CMD | head`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Output(io.FileIO):
    """A descriptor that goes on taking what it can write no longer: clean-up prints as well, and must not end half-way.

    lost: why it cannot write; None while it can. BrokenPipeError where the reader is gone.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.lost: OSError | None = None
        self._call: Callable[[], object] | None = None

    @contextmanager
    def calling(self, call: Callable[[], object]) -> Iterator[None]:
        """call: once it cannot write, in the thread that noticed it."""
        self._call = call
        try:
            yield
        finally:
            self._call = None

    def write(self, data: Any) -> int:
        """As io.RawIOBase has it."""
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
                if self._call is not None:
                    self._call()
        return memoryview(data).nbytes


@contextmanager
def standard() -> Iterator[Output | None]:
    """`sys.stdout` as an Output, flushed at the end. None where it is closed, or something else stands in its place."""
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper) or before is not sys.__stdout__:
        yield None
        return
    before.flush()
    output = Output(before.fileno())
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )
    try:
        yield output
    finally:
        sys.stdout.flush()
        sys.stdout = before
