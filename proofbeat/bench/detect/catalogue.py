"""Every signal, and the act that shows it: one row an act. Who adds a signal adds its act here, or says why none is.

An act may be in any file of proofbeat/acts/, if that imports the standard library alone and has a `Where` of this form.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from attestation.signals import Signal
from attestation.violation import ViolationClass
from proofbeat.acts import acts, calls, code
from proofbeat.acts.acts import DEADMAN, Act

EVENT_MS, RUN_MS, BEGUN_MS, END_MS, LOOK_MS = 10.0, 15.0, 30.0, 50.0, 1000.0
"""What is stated of an event, of an execution with what starting it takes, of what an execution is found to have begun
with, of the end of a process, and of what is looked at once a second."""
MEMORY_MS = 1050.0
"""Of a look into memory, with `memory.period` at a second, as scene.py has it; the look itself included."""


RELAYED_MS = 10.0
"""From where a detector has seen something, by way of its own program and the relay."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One act. collector: whose coverage answers for it. within_ms: stated from act to violation, beside the mesh's own
    traffic and with all privileges. needs_root: an ordinary user cannot do it, or is told nothing of it that can be
    relied upon. privileged: the former. dear: it takes seconds, or a new sidecar. graver: it is tamper here, whatever
    the signal's own class is. gated: by a workload that a gate stands before, and a fence around.
    """

    act: Callable[..., Act]
    signal: Signal
    collector: str
    within_ms: float
    needs_root: bool = False
    privileged: bool = False
    dear: bool = False
    graver: bool = False
    gated: bool = False

    @property
    def told_class(self) -> ViolationClass:
        return ViolationClass.TAMPER if self.graver else self.signal.default

    @property
    def name(self) -> str:
        return self.act.__name__.replace("_", "-")

    @property
    def told(self) -> str:
        """In a sentence."""
        return (self.act.__doc__ or "").split("\n")[0]

    @property
    def source(self) -> str:
        """The file that it is in, which is sent to the workload."""
        module = inspect.getmodule(self.act)
        return inspect.getsource(module) if module else ""

    def possible(self, *, restricted: bool) -> bool:
        """restricted: nobody here has any capability."""
        return not (restricted and self.privileged)

    def reliable(self, *, restricted: bool) -> bool:
        """It is told each time."""
        return not (restricted and self.needs_root)


def restricted() -> bool:
    """Have we no capability, whichever user we are (capabilities(7))?"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return any(line.startswith("CapEff:") and not int(line.split()[1], 16) for line in lines)


FILES, EXECUTIONS, RIGHTS, GATE = "files", "processes.executions", "processes.rights", "processes.gate"
EGRESS, FENCE, CALLS, MEMORY = "processes.egress", "processes.fence", "syscalls", "memory"
NOTIFIED = "syscalls.notified"
SIDECAR, GUARDIAN, DETECTORS = "sidecar", "guardian", "detectors"

CATALOGUE: tuple[Attack, ...] = (
    Attack(acts.write_in_place, Signal.FILE_MODIFIED, FILES, EVENT_MS),
    Attack(acts.swap_by_rename, Signal.FILE_MODIFIED, FILES, EVENT_MS),
    Attack(acts.remove, Signal.FILE_MISSING, FILES, EVENT_MS),
    Attack(acts.add, Signal.FILE_UNREFERENCED, FILES, EVENT_MS),
    Attack(acts.put_a_pipe_there, Signal.FILE_UNREADABLE, FILES, EVENT_MS),
    Attack(acts.change_the_mode, Signal.FILE_ATTRIBUTES, FILES, EVENT_MS),
    Attack(acts.run_what_was_dropped, Signal.EXECUTION_FOREIGN, EXECUTIONS, RUN_MS, needs_root=True),
    Attack(acts.run_what_stays, Signal.EXECUTION_FOREIGN, EXECUTIONS, RUN_MS),
    Attack(acts.run_a_script, Signal.EXECUTION_FOREIGN, EXECUTIONS, RUN_MS, needs_root=True),
    Attack(acts.run_what_was_exchanged, Signal.EXECUTION_MODIFIED, EXECUTIONS, RUN_MS, needs_root=True),
    Attack(acts.run_from_memory, Signal.EXECUTION_DELETED, EXECUTIONS, RUN_MS, needs_root=True),
    Attack(acts.run_what_was_deleted, Signal.EXECUTION_DELETED, EXECUTIONS, RUN_MS, needs_root=True),
    Attack(acts.run_from_the_logs, Signal.EXECUTION_FROM_DATA, EXECUTIONS, RUN_MS, needs_root=True),
    Attack(acts.give_an_interpreter_a_script, Signal.SCRIPT_FOREIGN, EXECUTIONS, BEGUN_MS, needs_root=True),
    Attack(acts.give_a_loader_a_program, Signal.SCRIPT_FOREIGN, EXECUTIONS, BEGUN_MS, needs_root=True),
    Attack(acts.exchange_a_script, Signal.SCRIPT_MODIFIED, EXECUTIONS, BEGUN_MS, needs_root=True),
    Attack(acts.give_an_interpreter_a_log, Signal.SCRIPT_FROM_DATA, EXECUTIONS, BEGUN_MS, needs_root=True),
    Attack(acts.preload_a_library, Signal.PROCESS_PRELOAD, EXECUTIONS, BEGUN_MS, needs_root=True),
    Attack(
        acts.run_what_a_gate_refuses,
        Signal.EXECUTION_REFUSED,
        GATE,
        EVENT_MS,
        needs_root=True,
        privileged=True,
        gated=True,
    ),
    Attack(acts.become_root, Signal.PROCESS_USER, RIGHTS, EVENT_MS, needs_root=True, privileged=True),
    Attack(
        acts.raise_a_capability,
        Signal.PROCESS_CAPABILITIES,
        RIGHTS,
        LOOK_MS,
        needs_root=True,
        privileged=True,
        dear=True,
    ),
    Attack(
        acts.enter_another_namespace,
        Signal.PROCESS_NAMESPACES,
        RIGHTS,
        LOOK_MS,
        needs_root=True,
        privileged=True,
        dear=True,
    ),
    Attack(acts.attach, Signal.PROCESS_TRACER, RIGHTS, EVENT_MS, needs_root=True),
    Attack(acts.run_a_shell_on_a_connection, Signal.PROCESS_STDIO_SOCKET, RIGHTS, BEGUN_MS, needs_root=True),
    Attack(acts.put_a_connection_on_stdin, Signal.PROCESS_STDIO_SOCKET, RIGHTS, LOOK_MS, dear=True),
    Attack(acts.connect_elsewhere, Signal.EGRESS_FOREIGN, EGRESS, LOOK_MS, dear=True),
    Attack(
        acts.connect_past_a_fence,
        Signal.EGRESS_REFUSED,
        FENCE,
        EVENT_MS,
        needs_root=True,
        privileged=True,
        gated=True,
    ),
    Attack(calls.leave_the_baseline, Signal.CALL_FOREIGN, CALLS, EVENT_MS, needs_root=True),
    Attack(calls.call_what_leaves_no_trace, Signal.CALL_FOREIGN, NOTIFIED, EVENT_MS),
    Attack(calls.call_by_the_older_interface, Signal.CALL_FOREIGN, CALLS, EVENT_MS, needs_root=True),
    Attack(calls.use_a_capability, Signal.CAPABILITY_USED, CALLS, EVENT_MS, needs_root=True, privileged=True),
    Attack(calls.open_by_io_uring, Signal.CALL_FOREIGN, CALLS, EVENT_MS, needs_root=True),
    Attack(calls.write_into_a_process, Signal.PROCESS_WRITTEN, CALLS, EVENT_MS, needs_root=True),
    Attack(code.patch_its_own_code, Signal.MEMORY_CODE_PATCHED, MEMORY, MEMORY_MS),
    Attack(code.patch_the_code_of_another, Signal.MEMORY_CODE_PATCHED, MEMORY, MEMORY_MS),
    Attack(code.set_a_breakpoint, Signal.MEMORY_CODE_PROBED, MEMORY, MEMORY_MS),
    Attack(code.load_a_dropped_library, Signal.MEMORY_CODE_FOREIGN, MEMORY, MEMORY_MS),
    Attack(code.load_from_memory, Signal.MEMORY_CODE_DELETED, MEMORY, MEMORY_MS),
    Attack(code.load_and_delete, Signal.MEMORY_CODE_DELETED, MEMORY, MEMORY_MS, needs_root=True),
    Attack(code.map_what_was_exchanged, Signal.MEMORY_CODE_MODIFIED, MEMORY, MEMORY_MS),
    Attack(code.make_code, Signal.MEMORY_CODE_ANONYMOUS, MEMORY, MEMORY_MS),
    Attack(code.map_code_writable, Signal.MEMORY_CODE_WRITABLE, MEMORY, MEMORY_MS),
    Attack(acts.do_what_a_detector_sees, Signal.DETECTOR_ALERT, DETECTORS, RELAYED_MS),
    Attack(acts.ask_for_the_key, Signal.KEY_SOCKET_SECOND_CLIENT, SIDECAR, EVENT_MS, graver=True),
    Attack(
        acts.flood_a_stopped_measurer,
        Signal.COLLECTOR_OVERFLOWED,
        FILES,
        LOOK_MS,
        needs_root=True,
        privileged=True,
        dear=True,
    ),
    Attack(acts.stop_the_sidecar, Signal.COLLECTOR_DEAD, GUARDIAN, DEADMAN * 2000, dear=True),
    Attack(acts.kill_the_measurer, Signal.MEASURER_LOST, SIDECAR, END_MS, dear=True),
)

ELSEWHERE: Mapping[Signal, str] = MappingProxyType(
    {
        Signal.FILE_WRITTEN: "It takes a policy that has code `immutable` (tests/system/attacks/test_files.py).",
        Signal.MOUNT_CHANGED: "It takes mounts of the workload's own (tests/system/measurer/test_mounts.py).",
        Signal.FILE_VERSIONS_MIXED: "It takes reference values of two versions (tests/unit/policies/test_versions.py).",
        Signal.EXECUTION_FROM_TEMPORARY: "Policy has to `forbidTemporary` (tests/system/measurer/test_starts.py).",
        Signal.EXECUTION_GAINING: "Policy has to `forbidGaining` (tests/system/measurer/test_starts.py).",
        Signal.PROCESS_LABEL: "It takes a kernel with AppArmor or SELinux (tests/unit/measurer/test_labels.py).",
        Signal.CAPABILITIES_EXCEEDED: "Found by the next round, told as `contraindicated` (test_appraise.py).",
        Signal.PRIVILEGES_OPEN: "Found by the next round, told as `contraindicated` (test_appraise.py).",
        Signal.PROCESS_SECCOMP: "The kernel takes no filter back; told should it ever.",
        Signal.PROCESS_NO_NEW_PRIVILEGES: "The kernel never takes it back; told should it ever.",
        Signal.PROCESS_SCOPE: "It takes a cgroup as scope (tests/system/measurer/test_executions.py).",
        Signal.PROCESS_UNMEASURED: "It takes a measurer that may not read it (tests/system/measurer/test_scope.py).",
        Signal.MEMORY_UNMEASURED: "It takes a measurer that may not read it (tests/system/measurer/test_memory.py).",
        Signal.PROXY_FOREIGN: "It takes another Envoy (tests/system/attacks/test_proxy.py).",
        Signal.PROXY_TRACED: "Where the layer `proxy` is asked for (test_proxy.py); else it is `process-tracer`.",
        Signal.PROXY_UNDENIED: "How Envoy was started and what it accepted (test_proxy.py).",
        Signal.PROXY_DRAINING: "How Envoy was started (test_proxy.py).",
        Signal.PROXY_RESUMING: "How Envoy was set up (test_proxy.py).",
        Signal.PROXY_CERTIFICATE: "What Envoy serves, asked once a round (test_served_certificate.py).",
        Signal.PROXY_UNKNOWN: "What cannot be found out of Envoy (tests/unit/policies/test_proxy.py).",
        Signal.PROXY_ABSENT: "Nobody holds the key (tests/unit/policies/test_proxy.py).",
        Signal.COLLECTOR_LAGGING: "Its events come late (tests/system/measurer/test_pace.py).",
        Signal.DETECTOR_SILENT: "Policy has to require a detector (tests/system/attacks/test_detectors.py).",
        Signal.FLAPPING: "It takes a policy that counts closings (tests/unit/sidecar/test_freshness.py).",
        Signal.LAYER_ABSENT: "Policy asks for what nothing here measures; found by the authority.",
        Signal.LAYER_OLD: "The measurement is too old; found by the authority.",
        Signal.COVERAGE_WEAK: "Policy asks for more of the watchers than there is; found by the authority.",
        Signal.REFERENCES_EXPIRED: "Time makes it so (tests/system/authority/test_references.py).",
        Signal.RULE_FAILED: "A rule of the policy's own (tests/system/authority/test_rules.py).",
        Signal.RULE_ERROR: "A rule of the policy's own (tests/system/authority/test_rules.py).",
        Signal.CONTRAINDICATED: "What the authority says of all that is found by a round.",
        Signal.QUARANTINED_DRIFT: "The authority says so (tests/system/authority/test_orders.py).",
        Signal.QUARANTINED_TAMPER: "The authority says so (tests/system/authority/test_orders.py).",
        Signal.QUARANTINED_ORDER: "An operator says so (tests/system/authority/test_orders.py).",
        Signal.QUARANTINED_CLONE: "The authority says so (tests/system/authority/test_rounds.py).",
    }
)
"""Signals that no act inside a workload shows, and why."""

UNSEEN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        FILES: (
            "What others than the workload write through a shared mapping, until it is closed or all is read again.",
            "What is changed below a mounted file system from outside of it, until the next round.",
            "Reading: no collector tells who reads what.",
        ),
        EXECUTIONS: (
            "Code that is run without an execution and is not among what a process is started with: a library that is"
            " loaded later, a module or a script that a script reads, what an interpreter is told on its command line"
            " or reads through a pipe, classes of a JVM that are in no `-jar`.",
            "The script of an interpreter that has ended before its arguments could be read, within a millisecond or"
            " two, or that has written others over them by then; an interpreter by a name that is not known.",
            "Environment that is set or changed by the process itself, and other variables than those of the loader"
            " (`BASH_ENV`, `PYTHONPATH`, `NODE_OPTIONS`, `PERL5OPT`, `JAVA_TOOL_OPTIONS`).",
            "A process that enters the cgroup from outside and ends within milliseconds.",
            "For an ordinary user's measurer: whatever ends between two looks at the process table.",
        ),
        GATE: (
            "What needs no file of a mount to be executed (a memfd): it runs, and is told as an execution.",
            "What is no execution: a library, what an interpreter reads, what a loader is told to load.",
            "What a script holds by the time that its interpreter opens it: what was held against the list is what it"
            " held when it was executed.",
            "The first execution in a mount namespace, or from a mount, that a process of the workload has just made.",
        ),
        RIGHTS: (
            "What is taken and laid down again between two looks, but for users and tracers: the kernel tells of them.",
            "What a process may do that is none of the workload's.",
            "A shell that reads from a pipe which somebody else fills from a connection, as any server does for what it"
            " starts; a connection of AF_UNIX; one on any other descriptor than 0, 1 and 2.",
        ),
        EGRESS: (
            "What is connected and over between two looks.",
            "Datagrams that are sent without connecting, and raw packets.",
            "What is reached through this machine: a proxy on loopback, or Envoy itself.",
            "Connections in another network namespace than that of the first process, which is `process-namespaces`.",
        ),
        FENCE: (
            "What is reached through this machine, or by a socket that was there before the fence and needs no"
            " connecting: an open connection (`egress-foreign` tells of it), a raw socket.",
            "Sockets of AF_PACKET, AF_XDP, AF_VSOCK and AF_TIPC, which have no part in it; what the kernel connects by"
            " itself on somebody's behalf (AF_RDS, AF_RXRPC, a network file system); the first hop of source routing.",
            "A connection of another process on the workload's behalf: a socket that is handed over, a further path of"
            " MPTCP that the kernel takes at the peer's word.",
            "A process that came in from outside, for a quarter of a second. Anything while no measurer runs.",
        ),
        CALLS: (
            "A call of the baseline with other arguments, or in another sequence.",
            "A second call of the same name, until all is measured in full again.",
            "What is refused before it is made: by a seccomp filter, or by its own process's syscall user dispatch.",
            "Of `sampled`: a call between two windows. Of `lean`: whatever has no rarer trace than its entry.",
            "Who comes in from outside and is not made by the workload: until it is found, a second at most.",
            "What CAP_SYS_ADMIN is used for in a call that does not administer, as write(2) of a control file, and by"
            " clone(2): the namespace is told.",
            "How often and how fast calls are made judges nothing but a policy's rules: a burst within a second is told"
            " as that second's, an amount to within a factor of two.",
            "Without CAP_BPF and CAP_PERFMON: all of it.",
        ),
        NOTIFIED: (
            "What the filter lets through, and what io_uring does: that passes none.",
            "Who comes in from outside without the filter.",
            "A workload that was started without one: nothing can be put around what runs.",
        ),
        MEMORY: (
            "What is put back between two looks. Who attaches is looked at again and again for three seconds.",
            "Code in memory in which policy lets a program make code: a compiler's, or anybody's.",
            "An attack that brings no code of its own: with the code that is there (return-oriented programming), or by"
            " data alone.",
            "What an interpreter is made to run: a module, a script, a class. Its files are files.",
            "Whose act it was: process_vm_writev(2), /proc/PID/mem and ptrace(2) leave the same page behind.",
        ),
        DETECTORS: (
            "What a detector does not see, or has no rule for; and how long it takes to see it, which is its own.",
            "An alert that names no container, pod or process by which it could be told whose it is, unless policy"
            " takes such a one for this workload's.",
        ),
        SIDECAR: ("Who only looks at the key socket's name.",),
        GUARDIAN: (
            "Anything while measurer and sidecar are both stopped: then the kernel ends it, or Envoy's own lifetime.",
        ),
    }
)
"""What each collector does not see of the acts that it is there for."""
