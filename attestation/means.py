"""What a measurer can use of the kernel, each tried at its start: by which capability, and what that buys."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Means(StrEnum):
    """capability: what gives it, besides being of the right user or in the right namespace. buys: for whoever reads."""

    capability: str
    mechanism: str
    buys: str
    else_: str

    def __new__(cls, word: str, capability: str, mechanism: str, buys: str, else_: str) -> Means:
        made = str.__new__(cls, word)
        made._value_ = word
        made.capability, made.mechanism, made.buys, made.else_ = capability, mechanism, buys, else_
        return made

    FILE_EVENTS = (
        "file-events",
        "CAP_SYS_ADMIN",
        "fanotify, a mark a folder",
        "each change of a measured file, with its writer",
        "inotify: each change as soon, without its writer",
    )
    EXECUTED_FILES = (
        "executed-files",
        "CAP_SYS_ADMIN",
        "fanotify, FAN_OPEN_EXEC",
        "each file that is executed, held open: its digest even if it is gone by then",
        "the files of those processes that still run when they are looked at",
    )
    KERNEL_PROGRAMS = (
        "kernel-programs",
        "CAP_BPF and CAP_PERFMON",
        "programs (bpf(2)) at tracepoints, from Linux 6.10 on; in any namespace",
        "each fork, execution and end of the workload's own processes; the layer `syscalls`, where policy asks for it",
        "the process events connector, where that can be had: every process of the host wakes the measurer",
    )
    PROCESS_EVENTS = (
        "process-events",
        "CAP_NET_ADMIN",
        "the process events connector; in the machine's own pid and network namespaces alone",
        "each change of user and attachment; without `kernel-programs` each fork, execution and end as well",
        "users and attachments by looking, once a second; without `kernel-programs` the process table, every 20 ms: "
        "what is over by then is not seen",
    )
    PROCESS_ACCESS = (
        "process-access",
        "CAP_SYS_PTRACE",
        "/proc/PID/exe, root, ns",
        "workloads of other users, and what the kernel hides from its own user",
        "workloads of our own user alone",
    )
    FILE_ACCESS = (
        "file-access",
        "CAP_DAC_READ_SEARCH",
        "open",
        "files that our user may not read, and what other users' processes have open",
        "such a file counts as unreadable; of other users' processes no sockets are seen",
    )
    SOCKET_DESTROY = (
        "socket-destroy",
        "CAP_NET_ADMIN",
        "SOCK_DESTROY of sock_diag",
        "open connections are ended one by one",
        "Envoy is ended, or its connections are bounded in time",
    )
    NETWORK_ENTRY = (
        "network-entry",
        "CAP_SYS_ADMIN",
        "setns",
        "the same for an Envoy in another network namespace than ours, and what its workload connects to",
        "such an Envoy is ended, or its connections are bounded in time; egress is not watched",
    )
    DEADLINE = (
        "deadline",
        "CAP_SYS_ADMIN",
        "a program (bpf(2)) at Envoy's own control group of version 2",
        "no packet of Envoy passes once sidecar and measurer are gone together for the dead-man time and half a second",
        "what is open then ends by Envoy's own lifetimes (`mode: xds`) or limits (`mode: sds`)",
    )
    NOTIFICATIONS = (
        "notifications",
        "none; whoever starts the workload hands over its filter's listener",
        "SECCOMP_RET_USER_NOTIF of seccomp(2), from Linux 5.5 on",
        "a call that its filter does not let through waits until we have told of it, and can be refused "
        "(`syscalls.notified`)",
        "such a call is told as `syscalls.watching` has it, and never refused",
    )
    EGRESS_DENIAL = (
        "egress-denial",
        "CAP_SYS_ADMIN",
        "programs (bpf(2)) at a control group of version 2 above the workload's",
        "what policy does not allow is refused before its first packet (`egress.deny`, `deny-egress`)",
        "what is connected to is told once it is, and nothing of it refused",
    )
    KILL = (
        "kill",
        "CAP_KILL",
        "pidfd_send_signal",
        "an Envoy of another user can be ended",
        "an Envoy of our own user alone",
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """refusal: the kernel's, by name (`EPERM`); empty where it went well."""

    means: Means
    refusal: str = ""
