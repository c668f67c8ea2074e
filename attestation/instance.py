"""One run of a workload."""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestation import digests
from attestation.errors import InvalidInput

_FORM = re.compile(r"i-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class InstanceId:
    """Names one run of a workload: never a pid, which the kernel reuses, and never a SPIFFE ID, which runs share."""

    value: str

    def __post_init__(self) -> None:
        if not _FORM.fullmatch(self.value):
            raise InvalidInput(f"{self.value!r} is not an instance", mend="It is 'i-' and 32 hexadecimal digits.")

    @classmethod
    def of_run(cls, *, boot_id: str, cgroup: int, pid: int, start_ticks: int) -> InstanceId:
        """The instance whose first process has this pid and start time (field 22 of /proc/PID/stat).

        boot_id: /proc/sys/kernel/random/boot_id. cgroup: inode of the measured cgroup, 0 for a process tree.
        """
        run = f"{boot_id} {cgroup} {pid} {start_ticks}".encode()
        return cls("i-" + digests.tagged("instance", run)[:32])

    def __str__(self) -> str:
        return self.value
