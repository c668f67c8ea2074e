"""What somebody asked of `policy learn`, looked at before anything is watched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from attestation.errors import InvalidInput
from policies.model.policy import Mode

MOST_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Until:
    """When it is over: after so many seconds, or sooner where it is to end once nothing new comes."""

    seconds: float
    converged: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """output: the folder that is written. mode, spiffe_id: as of the policy and its registration; empty for none.

    listener: the socket at which the seccomp profile asks instead of refusing; empty where it is to refuse.
    """

    output: Path
    mode: Mode = Mode.OBSERVE
    spiffe_id: str = ""
    listener: str = ""
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """pids: first processes of workloads that run, each a run of its own. command: what is started instead, in the
    folder cwd. cgroup: of the only pid, whose scope it is then. merge: what was learned before. Raises InvalidInput for
    what cannot be meant.
    """

    name: str
    until: Until
    place: Place
    pids: tuple[int, ...] = ()
    command: tuple[str, ...] = ()
    cwd: Path = field(default_factory=Path)
    cgroup: str = ""
    include: tuple[Path, ...] = ()
    volatile: tuple[str, ...] = ()
    merge: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.pids and self.command:
            raise InvalidInput(
                "either what runs is watched, or a command is started", where="--pid", mend="Leave one of them out."
            )
        if not self.pids and not self.command and not self.merge:
            raise InvalidInput(
                "there is nothing to learn from",
                where="proofbeat policy learn",
                mend="Name what runs by --pid, or a command after `--`, or what was learned before by --merge.",
            )
        if self.cgroup and len(self.pids) != 1:
            raise InvalidInput("a cgroup is one workload's", where="--cgroup", mend="Name its first process by --pid.")
        if len(set(self.pids)) != len(self.pids):
            raise InvalidInput("a process is named twice", where="--pid", mend="Name each once.")
        if not 0 < self.until.seconds <= MOST_SECONDS:
            raise InvalidInput("a time from 1 s to 7 d is what it may be watched for", where="--for, --at-most")
