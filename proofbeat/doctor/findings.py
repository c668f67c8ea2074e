"""The doctor's judgement: pure, from facts that were found out by trying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Health(StrEnum):
    """OK; LIMITED: everything works, this part in a weaker way; BROKEN: Proofbeat cannot do its work like this."""

    OK = "ok"
    LIMITED = "limited"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. name: a stable word. found: what is there. costs: what is lost. mend: commands or lines."""

    name: str
    health: Health
    found: str
    costs: str = ""
    mend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What was tried on this machine. Each refusal is the kernel's own word, empty where it went well.

    libyaml: what is amiss with the reader of YAML, likewise.
    release, machine: as uname(2). capabilities, bounding: CapEff and CapBnd, hex. max_*, descriptors: limits,
    None where unreadable.
    yama: ptrace_scope, None without Yama. cgroup: version, 0 for none mounted. cgroup_writable: our own group may be
    divided. initial_pids: we see the whole machine's processes. envoy: its version, empty for none found.
    free_bytes: where state would lie. mechanisms: collector -> how it would watch here.
    """

    release: str
    machine: str
    python: str
    user: int
    capabilities: str = "0"
    bounding: str = "0"
    fanotify: str = ""
    programs: str = ""
    connector: str = ""
    sock_destroy: str = ""
    ptrace: str = ""
    read_search: str = ""
    fence: str = ""
    inotify: str = ""
    pidfd: str = ""
    peer_pidfd: str = ""
    openat2: str = ""
    memfd: str = ""
    timers: str = ""
    non_dumpable: str = ""
    libyaml: str = ""
    children: str = ""
    random: str = ""
    max_queued_events: int | None = None
    max_user_watches: int | None = None
    max_user_instances: int | None = None
    descriptors: int | None = None
    yama: int | None = None
    cgroup: int = 2
    cgroup_writable: bool = True
    initial_pids: bool = True
    envoy: str = ""
    free_bytes: int = 0
    mechanisms: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Need:
    """What one part needs. capability: one, or several with blanks between; empty where no privilege helps."""

    name: str
    fact: str
    good: str
    costs: str
    capability: str = ""
    broken: bool = False
    mend: tuple[str, ...] = ()


_KERNEL = ("Run a newer kernel; Linux 5.10 has all of it but SO_PEERPIDFD, which came with 6.5.",)
_NEEDS = (
    _Need(
        "fanotify",
        "fanotify",
        "files are watched with the writer's pid",
        "files are watched by inotify: a change is seen as soon, but not whose it was; foreign programs are found by "
        "looking at the process table",
        "CAP_SYS_ADMIN",
    ),
    _Need(
        "kernel-programs",
        "programs",
        "programs of ours in the kernel tell each fork, execution and end of the workload's processes, and of no "
        "others; the layer syscalls can be had",
        "the connector tells them of the whole machine's, where it can be had; there is no layer syscalls",
        "CAP_BPF CAP_PERFMON",
        mend=(
            "It also takes Linux 6.10 with CONFIG_DEBUG_INFO_BTF, and nothing that forbids bpf(2) (seccomp, lockdown).",
        ),
    ),
    _Need(
        "process-connector",
        "connector",
        "the kernel tells every change of user and attachment; without kernel-programs, every fork, exec and exit too",
        "changes of user are seen within a second; without kernel-programs the process table is looked at every 20 ms: "
        "a program that is gone before the next look is not seen",
        "CAP_NET_ADMIN",
        mend=("It also takes the machine's own pid and network namespaces (Kubernetes: hostPID, hostNetwork).",),
    ),
    _Need(
        "sock-destroy",
        "sock_destroy",
        "open connections are cut one by one",
        "open connections are ended by killing Envoy where it runs as our user, else by their duration cap",
        "CAP_NET_ADMIN",
    ),
    _Need(
        "ptrace-access",
        "ptrace",
        "processes of other users can be looked at",
        "only a workload of our own user can be measured",
        "CAP_SYS_PTRACE",
    ),
    _Need(
        "read-everything",
        "read_search",
        "files are read whoever may read them",
        "a measured file that our user may not read counts as unreadable, which closes",
        "CAP_DAC_READ_SEARCH",
    ),
    _Need(
        "egress-fence",
        "fence",
        "connections can be refused before their first packet",
        "a policy that asks for that (`egress.deny: required`, `deny-egress`) has nothing affirmed",
        "CAP_SYS_ADMIN",
        mend=("It also takes cgroup version 2 and Linux 6.16; from 5.17 on, a workload that a group of it names.",),
    ),
    _Need(
        "inotify",
        "inotify",
        "the fallback for files works",
        "nothing can watch files without privileges",
        mend=("sysctl fs.inotify.max_user_instances=512",),
    ),
    _Need(
        "pidfd",
        "pidfd",
        "processes are held, never looked up twice",
        "nothing can be pinned",
        broken=True,
        mend=_KERNEL,
    ),
    _Need(
        "openat2",
        "openat2",
        "files are opened below the workload's root",
        "files cannot be measured",
        broken=True,
        mend=_KERNEL,
    ),
    _Need(
        "memfd",
        "memfd",
        "measurements are handed over sealed",
        "measurements cannot be handed over",
        broken=True,
        mend=_KERNEL,
    ),
    _Need(
        "timers",
        "timers",
        "timers see sleeps and steps of the clock",
        "a lease's end cannot be watched",
        broken=True,
        mend=_KERNEL,
    ),
    _Need(
        "non-dumpable",
        "non_dumpable",
        "no core dumps, no tracer of our own user",
        "sidecar and measurer refuse to run",
        broken=True,
        mend=_KERNEL,
    ),
    _Need(
        "random",
        "random",
        "the kernel's random numbers are ready",
        "keys cannot be made yet",
        broken=True,
        mend=("Wait a moment after boot, or give the machine a hardware source (rng-tools).",),
    ),
    _Need(
        "libyaml",
        "libyaml",
        "policies and settings can be read",
        "no program of Proofbeat can read its settings",
        broken=True,
        mend=("pip install --force-reinstall --only-binary pyyaml pyyaml",),
    ),
    _Need("peer-pidfd", "peer_pidfd", "Envoy is known by pidfd", "Envoy is known by pid and start time", mend=_KERNEL),
    _Need(
        "process-children",
        "children",
        "a process's children can be listed",
        "looking for new processes reads the whole table",
        mend=("Run a kernel with CONFIG_PROC_CHILDREN.",),
    ),
)

_NUMBERS = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""linux/capability.h"""

LEAST_QUEUED, LEAST_WATCHES, LEAST_INSTANCES, LEAST_DESCRIPTORS = 16_384, 65_536, 16, 1024
LEAST_FREE = 64 << 20


def checks(facts: Facts) -> tuple[Check, ...]:
    """Every check, always all of them and in one order."""
    return (
        *(_need(each, facts) for each in _NEEDS),
        _limit(
            "queued-events",
            "fs.fanotify.max_queued_events",
            facts.max_queued_events,
            LEAST_QUEUED,
            "the queue runs over sooner under a flood of changes, which closes until all is read again",
        ),
        _limit(
            "inotify-watches",
            "fs.inotify.max_user_watches",
            facts.max_user_watches,
            LEAST_WATCHES,
            "with inotify, a workload of more folders than that cannot be watched",
        ),
        _limit(
            "inotify-instances",
            "fs.inotify.max_user_instances",
            facts.max_user_instances,
            LEAST_INSTANCES,
            "with inotify, no more measurers than that run for one user",
        ),
        _effective(facts),
        _descriptors(facts),
        _yama(facts),
        _pids(facts),
        _cgroup(facts),
        _envoy(facts),
        _space(facts),
    )


def mend_all(found: Sequence[Check], facts: Facts) -> tuple[str, ...]:
    """One set of lines that gives every capability that is missing."""
    lacking = {each.name for each in found if each.health is not Health.OK}
    wanted = {word for each in _NEEDS if each.name in lacking for word in each.capability.split()}
    if "CAP_SYS_ADMIN" in wanted:
        wanted -= {"CAP_BPF", "CAP_PERFMON"}  # which it contains (capabilities(7))
    return _granted(sorted(wanted), facts.user) if wanted else ()


def _granted(capabilities: Sequence[str], user: int) -> tuple[str, ...]:
    short = [each.removeprefix("CAP_") for each in capabilities]
    root = "runAsUser: 0, " if user else ""
    marked = ",".join(f"+{each.lower()}" for each in short)
    return (
        f"once:        sudo setpriv --reuid $(id -u) --regid $(id -g) --init-groups --inh-caps {marked} "
        f"--ambient-caps {marked} $(command -v proofbeat) sidecar -c FILE",
        f"systemd:     AmbientCapabilities={' '.join(capabilities)}",
        f"Kubernetes:  securityContext: {{{root}capabilities: {{add: [{', '.join(short)}]}}}}",
    )


def _need(need: _Need, facts: Facts) -> Check:
    refusal: str = getattr(facts, need.fact)
    if not refusal:
        return Check(need.name, Health.OK, need.good)
    named = need.capability.replace(" ", " and ")
    capability = (f"Give the sidecar {named}; how is said below.",) if named else ()
    health = Health.BROKEN if need.broken else Health.LIMITED
    return Check(need.name, health, refusal, need.costs, (*capability, *need.mend))


def _limit(name: str, setting: str, value: int | None, least: int, costs: str) -> Check:
    if value is None:
        return Check(name, Health.LIMITED, f"{setting} cannot be read", costs, ("Look at it as root.",))
    health = Health.OK if value >= least else Health.LIMITED
    bad = health is not Health.OK
    return Check(
        name, health, f"{setting} = {value}", costs if bad else "", (f"sysctl {setting}={least}",) if bad else ()
    )


def _effective(facts: Facts) -> Check:
    """A container engine adds a capability to what its processes may have; who is not root has none of it by that.

    An ordinary user of a machine is told so by each check: there, all that there is may be had.
    """
    name, bounding, effective = "effective-capabilities", int(facts.bounding, 16), int(facts.capabilities, 16)
    given = [each for each, number in _NUMBERS.items() if bounding >> number & 1]
    idle = [each for each in given if not effective >> _NUMBERS[each] & 1]
    contained = len(given) < len(_NUMBERS) or not facts.initial_pids
    if facts.user == 0 or not idle or not contained:
        return Check(name, Health.OK, "all that are given are effective" if given else "none are given")
    words = ", ".join(each.removeprefix("CAP_") for each in idle)
    mend = (
        f"Kubernetes:  securityContext: {{runAsUser: 0, capabilities: {{drop: [ALL], add: [{words}]}}}}",
        "docker:      --user 0, as in Kubernetes: of another user's nothing that is added becomes effective",
        "podman:      --user with --cap-add in the same command makes them ambient",
        f"systemd:     AmbientCapabilities={' '.join(idle)}",
    )
    costs = "what they would buy: they are given to the container, and have to be ambient for any user but root"
    return Check(name, Health.LIMITED, f"{', '.join(idle)} given, and not effective for user {facts.user}", costs, mend)


def _descriptors(facts: Facts) -> Check:
    name, costs = "descriptors", "an authority or sidecar with many connections runs out of them and refuses new ones"
    if facts.descriptors is None or facts.descriptors >= LEAST_DESCRIPTORS:
        return Check(name, Health.OK, f"open files: {'unlimited' if facts.descriptors is None else facts.descriptors}")
    mend = (f"ulimit -n {LEAST_DESCRIPTORS}", f"systemd: LimitNOFILE={LEAST_DESCRIPTORS}")
    return Check(name, Health.LIMITED, f"open files: {facts.descriptors}", costs, mend)


def _yama(facts: Facts) -> Check:
    if facts.yama is not None and facts.yama >= 1:
        return Check("yama", Health.OK, f"kernel.yama.ptrace_scope = {facts.yama}")
    found = "no Yama" if facts.yama is None else "kernel.yama.ptrace_scope = 0"
    costs = "a process of Envoy's user may attach to it; sidecar and measurer refuse that by themselves"
    mend = ("Give workload and Envoy different users.",)
    return Check(
        "yama",
        Health.LIMITED,
        found,
        costs,
        mend if facts.yama is None else ("sysctl kernel.yama.ptrace_scope=1", *mend),
    )


def _pids(facts: Facts) -> Check:
    if facts.initial_pids:
        return Check("pid-namespace", Health.OK, "the machine's own pid namespace")
    costs = "only workloads in this pid namespace can be measured, and no kernel event tells of processes"
    mend = ("Kubernetes: shareProcessNamespace: true in the pod, or hostPID: true", "docker: --pid=host")
    return Check("pid-namespace", Health.LIMITED, "a pid namespace of its own", costs, mend)


def _cgroup(facts: Facts) -> Check:
    costs = "a workload is then its process tree: what leaves the tree unseen is missed"
    if facts.cgroup == 0:
        mount = "mount -t cgroup2 none /sys/fs/cgroup"
        return Check("cgroup", Health.LIMITED, "no cgroups are mounted", costs, (mount,))
    found = f"cgroup version {facts.cgroup}"
    if facts.cgroup_writable:
        return Check("cgroup", Health.OK, f"{found}, and ours may be divided")
    mend = ("systemd-run --user --scope -p Delegate=yes PROGRAM", "and workload.cgroup in the sidecar's settings")
    return Check("cgroup", Health.LIMITED, f"{found}, and ours is not delegated to us", costs, mend)


def _envoy(facts: Facts) -> Check:
    if facts.envoy:
        return Check("envoy", Health.OK, f"Envoy {facts.envoy}")
    mend = ("uv pip install 'proofbeat[demo]'",)
    return Check("envoy", Health.LIMITED, "no Envoy beside Proofbeat or on PATH", "the demo and the benchmarks", mend)


def _space(facts: Facts) -> Check:
    found = f"{facts.free_bytes >> 20} MiB free"
    if facts.free_bytes >= LEAST_FREE:
        return Check("disk", Health.OK, found)
    costs = "a latch or a store that cannot be written ends its program, closed"
    return Check("disk", Health.BROKEN, found, costs, (f"Make room: {LEAST_FREE >> 20} MiB at least.",))
