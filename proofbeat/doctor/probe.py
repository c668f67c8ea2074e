"""Finding out by trying: nothing here judges, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attestation.cgroups import memberships
from attestation.channel import Covered, Fault, Message, Scope
from attestation.coverage import Coverage
from attestation.errors import Unavailable
from measurer import kernel, sockdiag
from measurer.bpf.fence import Barrier
from measurer.bpf.watch import Watch
from measurer.files.fanotify import Fanotify
from measurer.files.inotify import Inotify
from measurer.processes.connector import Connector
from measurer.scope import top_group
from policies.model import dialect
from proofbeat import envoy, process
from proofbeat.doctor.findings import Facts
from sidecar.clock import LeaseTimer
from sidecar.measurement import Measurer, spawn

WITHIN_SECONDS = 20.0
_INITIAL_PIDS = "pid:[4026531836]"  # linux/proc_ns.h, PROC_PID_INIT_INO
_SYS = Path("/proc/sys")
_CGROUPS = Path("/sys/fs/cgroup")


async def facts(state: Path) -> Facts:
    """state: where free space is looked for. Makes this process non-dumpable, as a sidecar does."""
    process.harden()
    coverage = await measurer_coverage()
    return Facts(
        release=platform.release(),
        machine=platform.machine(),
        python=platform.python_version(),
        user=os.geteuid(),
        capabilities=_capabilities("CapEff:"),
        bounding=_capabilities("CapBnd:"),
        fanotify=tried(lambda: Fanotify().close()),
        programs=tried(lambda: Watch(1).close()),
        connector=tried(lambda: Connector().close()),
        sock_destroy=_destroying(),
        ptrace=tried(_look_at_the_hidden),
        read_search=tried(_read_unreadable),
        fence=tried(_put_up_a_fence),
        inotify=tried(lambda: Inotify().close()),
        pidfd=tried(lambda: os.close(os.pidfd_open(os.getpid()))),
        peer_pidfd=tried(_peer_pidfd),
        openat2=tried(_open_below),
        memfd=tried(lambda: os.close(os.memfd_create("doctor", os.MFD_ALLOW_SEALING))),
        timers=tried(_timers),
        non_dumpable="" if coverage.isolation.non_dumpable else "the kernel does not take PR_SET_DUMPABLE 0",
        libyaml=_libyaml(),
        children=tried(lambda: Path(f"/proc/self/task/{os.getpid()}/children").read_text()),
        random=tried(lambda: os.getrandom(16, os.GRND_NONBLOCK)),
        max_queued_events=_number("fs/fanotify/max_queued_events"),
        max_user_watches=_number("fs/inotify/max_user_watches"),
        max_user_instances=_number("fs/inotify/max_user_instances"),
        descriptors=_descriptors(),
        yama=_number("kernel/yama/ptrace_scope"),
        cgroup=_cgroup_version(),
        cgroup_writable=_cgroup_writable(),
        initial_pids=tried(_initial_pids) == "",
        envoy=_envoy(),
        free_bytes=shutil.disk_usage(nearest(state)).free,
        mechanisms={each.name: each.mechanism.value for each in coverage.collectors},
    )


async def measurer_coverage() -> Coverage:
    """What a measurer of a process of ours can have. Raises Unavailable."""
    found: asyncio.Future[Coverage] = asyncio.get_running_loop().create_future()

    def heard(message: Message, _: bytes | None) -> None:
        if found.done():
            return
        if isinstance(message, Covered):
            found.set_result(message.coverage)
        elif isinstance(message, Fault):
            found.set_exception(Unavailable(message.what, where=message.where, mend=message.mend))

    measurer = Measurer(heard, lambda reason: None if found.done() else found.set_exception(Unavailable(reason)))
    measurer.start(asyncio.get_running_loop(), spawn())
    workload = await asyncio.create_subprocess_exec("sleep", f"{WITHIN_SECONDS:g}")
    try:
        measurer.send(Scope(workload.pid, ()))
        async with asyncio.timeout(WITHIN_SECONDS):
            return await found
    except TimeoutError as error:
        raise Unavailable(f"the measurer did not answer within {WITHIN_SECONDS:g} s", where="measurer") from error
    finally:
        measurer.stop()
        with suppress(ProcessLookupError):
            workload.kill()
        await workload.wait()


def tried(what: Callable[[], object]) -> str:
    """The kernel's refusal, empty for none."""
    try:
        what()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def nearest(path: Path) -> Path:
    """The path, or the folder above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _destroying() -> str:
    code = sockdiag.can_destroy()
    return os.strerror(code) if code else ""


def _look_at_the_hidden() -> None:
    """At a process that the kernel hides from its own user: it takes what another user's would take (ptrace(2))."""
    hide = "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-I", "-S", "-c", hide]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hidden:
        if hidden.stdout is not None:
            hidden.stdout.readline()
        try:
            Path(f"/proc/{hidden.pid}/exe").readlink()
        finally:
            hidden.kill()


def _put_up_a_fence() -> None:
    """Around nobody."""
    group = top_group(Path("/proc/self/cgroup").read_bytes())
    try:
        Barrier(group, 1).close()
    finally:
        os.close(group)


def _read_unreadable() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "unreadable")
        file.touch(mode=0o000)
        file.read_bytes()


def _peer_pidfd() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.close(ours.getsockopt(socket.SOL_SOCKET, kernel.SO_PEERPIDFD))


def _open_below() -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(kernel.open_below(root, b"/proc", os.O_PATH))
    finally:
        os.close(root)


def _timers() -> None:
    loop = asyncio.get_running_loop()
    timer = LeaseTimer(on_end=lambda: None, on_set=lambda: None)
    timer.start(loop)
    timer.close(loop)


def _initial_pids() -> None:
    found = str(Path("/proc/self/ns/pid").readlink())
    if found != _INITIAL_PIDS:
        raise OSError(0, f"another pid namespace, {found}")


def _capabilities(which: str) -> str:
    status = Path("/proc/self/status").read_text()
    return next((line.split()[1] for line in status.splitlines() if line.startswith(which)), "0")


def _number(name: str) -> int | None:
    try:
        return int((_SYS / name).read_text())
    except (OSError, ValueError):
        return None


def _descriptors() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _cgroup_version() -> int:
    if (_CGROUPS / "cgroup.controllers").exists():
        return 2
    return 1 if _CGROUPS.is_dir() and any(_CGROUPS.iterdir()) else 0


def _cgroup_writable() -> bool:
    own = memberships(Path("/proc/self/cgroup").read_bytes())
    folders = [path for number, path in own.items() if number == 0] or list(own.values())
    return any(os.access(_CGROUPS / path.lstrip("/"), os.W_OK) for path in folders)


def _libyaml() -> str:
    try:
        dialect.reader()
    except Unavailable as error:
        return error.what
    return ""


def _envoy() -> str:
    try:
        return envoy.version(envoy.binary())
    except (Unavailable, OSError, subprocess.SubprocessError):
        return ""
