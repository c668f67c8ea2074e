"""The page of profiles: which capabilities come to what. `python -m proofbeat.doctor.profiles > docs/profiles.md`.

What each set comes to is held against the kernel by tests/system/measurer/test_profiles.py, row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attestation.coverage import Profile
from attestation.means import Means

_TAKING_SOME = frozenset(Means) - {Means.NOTIFICATIONS}
"""All that a capability buys."""
GIVEN: dict[tuple[str, ...], tuple[Profile, frozenset[Means]]] = {
    ("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN", "KILL"): (Profile.FULL, frozenset()),
    ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN"): (Profile.FULL, frozenset({Means.FILE_ACCESS, Means.KILL})),
    ("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "KILL"): (
        Profile.FULL,
        frozenset({Means.PROCESS_EVENTS, Means.SOCKET_DESTROY}),
    ),
    ("SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN", "KILL"): (
        Profile.RESTRICTED,
        frozenset(
            {
                *(Means.FILE_EVENTS, Means.EXECUTED_FILES, Means.KERNEL_PROGRAMS),
                *(Means.NETWORK_ENTRY, Means.DEADLINE, Means.EGRESS_DENIAL),
            }
        ),
    ),
    ("SYS_PTRACE", "DAC_READ_SEARCH", "BPF", "PERFMON", "KILL"): (
        Profile.RESTRICTED,
        _TAKING_SOME - {Means.PROCESS_ACCESS, Means.FILE_ACCESS, Means.KERNEL_PROGRAMS, Means.KILL},
    ),
    ("SYS_PTRACE",): (Profile.RESTRICTED, _TAKING_SOME - {Means.PROCESS_ACCESS}),
    (): (Profile.RESTRICTED, _TAKING_SOME - {Means.PROCESS_ACCESS, Means.KILL}),
}
"""Capabilities -> profile, and what the kernel refuses: of another user's workload; without any, of our own user's.

SYS_ADMIN contains BPF and PERFMON (capabilities(7)). From Linux 6.10 on; before, `kernel-programs` is refused to all.
"""

_TOLD = (
    ("a measured file changes", "`file-*`", "5 ms, and who did it", "5 ms, and who did it", "5 ms"),
    ("a program runs for 20 ms or longer", "`execution-*`", "5 ms", "5 ms", "20 ms"),
    (
        "it is over sooner",
        "`execution-*`",
        "5 ms, and its digest",
        "5 ms if its process is still there, else not",
        "not; with `kernel-programs` 5 ms, without a digest if it is gone by then",
    ),
    ("it runs from a memfd", "`execution-deleted`", "5 ms", "20 ms", "20 ms"),
    (
        "it was started with a script, or with libraries before its own, and runs on",
        "`script-*`, `process-preload`",
        "5 ms",
        "20 ms",
        "20 ms; not where an interpreter executes itself anew",
    ),
    (
        "a process is made that leaves its parents",
        "all of processes",
        "5 ms",
        "20 ms, if they still live then",
        "as `contained`; with `kernel-programs` 5 ms",
    ),
    (
        "somebody enters the container and executes",
        "`execution-*`",
        "5 ms",
        "5 ms",
        "20 ms, or 50 times what a look takes",
    ),
    ("somebody enters it and executes nothing", "`execution-*`", "3 s", "3 s", "3 s"),
    (
        "a process changes its user",
        "`process-user`",
        "5 ms; without `process-events` 1 s, and nothing where only one of its threads does",
        "1 s",
        "1 s",
    ),
    (
        "somebody attaches to it",
        "`process-tracer`",
        "5 ms; without `process-events` when it is stopped or looked into, else 1 s",
        "1 s",
        "1 s; with `kernel-programs` as `full` without `process-events`",
    ),
    ("it changes what it may do, or where it lives", "other `process-*`", "1 s", "1 s", "1 s"),
    (
        "a shell is executed on a connection; it is put there later",
        "`process-stdio-socket`",
        "5 ms; 1 s",
        "20 ms; 1 s",
        "20 ms; 1 s",
    ),
    (
        "a process connects",
        "`egress-foreign`",
        "as policy says (1 s), or 100 times what a look takes, up to 20 s",
        "as `full`",
        "as `full`, where the network namespace is ours",
    ),
    (
        "it wants to, and policy has that refused (`egress.deny`)",
        "`egress-refused`",
        "5 ms, and it is refused",
        "as `full`",
        "not: nothing is refused, nor affirmed where that is required",
    ),
    (
        "code in memory is not what its file holds, or of no file that is referenced, where policy asks for `memory`",
        "`memory-*`",
        "`memory.period`, 5 s",
        "as `full`",
        "as `full`",
    ),
    (
        "the same, in a process that somebody attached to",
        "`memory-*`",
        "20 ms, by the event of attaching, where that comes",
        "1 s",
        "1 s",
    ),
    ("a collector falls behind", "`collector-lagging`", "3 to 5 s", "3 to 5 s", "3 to 5 s"),
)

_HEAD = """# Profiles: what each capability buys

The measurer tries everything at its start, takes what the kernel gives, and says in evidence what it came to: which
mechanism each collector has, how late it is, and what refused it. The sidecar logs the refusals by name (`EPERM`),
and `proofbeat doctor` names the command that gives what is missing. A policy asks for the least
(`coverage: {profile: full}`); less is `coverage-weak`.

"""

_TAIL = """
Times are worst cases on an idle machine, between the act and the fact. A kernel without a mechanism refuses it as a
lack of the capability does, by another name (`ENOSYS`, `EINVAL`).

## Not root
A capability that is *added* to a container (`capabilities: {add: [...]}`) becomes effective for user 0 alone: for
another user it has to be ambient, which podman makes it (`--user` with `--cap-add`), systemd too
(`AmbientCapabilities=`), and Kubernetes and docker do not. There, run the sidecar's container with `runAsUser: 0`,
`drop: [ALL]` and what is added, or measure by [one measurer for the node](node.md), whose sidecars need none.
`proofbeat doctor` in the container tells: check `effective-capabilities`.

## Looking into memory
What is mapped, and which pages are a process's own, takes the right to look at it (`PTRACE_MODE_READ`): the same user,
or `SYS_PTRACE`. To read a page and tell breakpoints from other code takes the right to attach; without it every such
page is `memory-code-patched`. The file that is mapped is followed with `SYS_ADMIN` or `CHECKPOINT_RESTORE`; without
them it is what lies under its name, if that is the same inode, so that nothing is known of a library whose name is gone
(`memory-code-deleted`). Kernels before 6.11 have no PROCMAP_QUERY and before 6.7 no PAGEMAP_SCAN: then texts and bits
of `/proc` say the same, dearer; coverage names which it was.

## Keeping up
Every two seconds each collector sends something of its own the way of all events: the attributes of a folder that no
name leads to, its opening, a thread of its own, a change of our own name to the same. What is not out within three
seconds, or a turn that comes as much too late, is `collector-lagging`: the measurer was stopped, starved of its
processor or flooded, or the kernel has dropped its subscription. Lost events are `collector-overflowed` and are counted
in evidence, an end is `collector-dead`, and silence beyond the dead-man time ends the identity whatever policy says.
"""


def page() -> str:
    """The whole of docs/profiles.md."""
    means = [("with", "by", "it buys", "without it"), *((_capability(m), m.mechanism, m.buys, m.else_) for m in Means)]
    given = [
        ("capabilities", "profile", "refused"),
        *(
            (_words(names), f"`{profile}`", _words(m.value for m in Means if m in refused))
            for names, (profile, refused) in GIVEN.items()
        ),
    ]
    told = [("told when", "signals", *(f"`{each}`" for each in Profile)), *_TOLD]
    profiles = "\n".join(f"- `{each}`: {_meaning(each)}" for each in Profile)
    return f"{_HEAD}{_table(means)}\n{profiles}\n\n{_table(given)}\n{_table(told)}{_TAIL}"


def _capability(means: Means) -> str:
    return f"{means.capability} (`{means.value}`)"


def _meaning(profile: Profile) -> str:
    return {
        Profile.FULL: "every change of a file with its writer, every fork, execution and end: by `kernel-programs` "
        "anywhere, by `process-events` in the machine's own namespaces",
        Profile.CONTAINED: "every change of a file with its writer and every execution of a file; forks and ends by "
        "looking. The most that there is in a container where the kernel takes no programs of ours (before Linux 6.10, "
        "or bpf(2) is forbidden)",
        Profile.RESTRICTED: "less: changes of files without their writers, or processes by looking alone",
    }[profile]


def _words(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in names) or "none"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join((head, "|" + "---|" * len(rows[0]), *others, ""))


if __name__ == "__main__":
    print(page(), end="")
