"""What an intruder does inside of a process, without a file and without a program: the process is sent code.

They are acts of an intruder like any; the demo's service has a hole for them, and `up` an intruder beside the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attestation.coverage import CALLS, EGRESS, MEMORY
from attestation.signals import Signal
from proofbeat.acts.acts import connect_elsewhere, outward
from proofbeat.acts.calls import leave_the_baseline, open_by_io_uring
from proofbeat.acts.code import patch_its_own_code
from proofbeat.ephemeral.watch import Line


@dataclass(frozen=True, slots=True)
class Intrusion:
    """signal: what it is told as. collector: who sees it. about: for people, a sentence. done: the same, afterwards."""

    name: str
    act: Callable[[Any], Iterator[float]]
    signal: Signal
    collector: str
    about: str
    done: str

    @property
    def source(self) -> str:
        """Python that does it, and keeps what it opened."""
        module = inspect.getmodule(self.act)
        text = inspect.getsource(module) if module else ""
        return f"{text}\nkept = {self.act.__name__}(None)\nnext(kept)\n"

    @property
    def prevented(self) -> str:
        """Why it cannot be done on this machine; empty where it can."""
        if self.signal is Signal.EGRESS_FOREIGN:
            try:
                outward()
            except OSError as error:
                return f"this machine has no address to connect to: {error.strerror}"
        return ""


INTRUSIONS = (
    Intrusion(
        "call-outside",
        leave_the_baseline,
        Signal.CALL_FOREIGN,
        CALLS,
        "A system call is made that was never made before.",
        "it was made to call personality(2)",
    ),
    Intrusion(
        "ring-opened",
        open_by_io_uring,
        Signal.CALL_FOREIGN,
        CALLS,
        "An io_uring is opened, by which files are opened without a call.",
        "it was made to open a file by io_uring",
    ),
    Intrusion(
        "code-patched",
        patch_its_own_code,
        Signal.MEMORY_CODE_PATCHED,
        MEMORY,
        "Code is patched in the running process; its files stay as they are.",
        "one byte of its code was changed in memory",
    ),
    Intrusion(
        "egress",
        connect_elsewhere,
        Signal.EGRESS_FOREIGN,
        EGRESS,
        "It connects to where it never did before.",
        "it was made to connect to a new address",
    ),
)


def absent(line: Line, collector: str) -> str:
    """Why nobody here sees what this collector sees, empty where somebody does. line: coverage, as sidecars log it."""
    if collector in line["collectors"]:
        return ""
    detail = line["stopped"].get(collector, "")
    return f"nobody looks for it here{f': {detail}' if detail else ''}; `proofbeat doctor` says what that takes"
