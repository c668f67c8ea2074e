"""`python -m tests.system.attacks.reuse`, as init of a pid namespace: has a pid given out twice and tries it on each.

Ends with 0 when every attempt is refused; AssertionError else.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from attestation import processes
from attestation.channel import Guard, Guarded, Measure, Observed, Scope
from attestation.facts import CollectorFact, CollectorState, InstanceFact
from attestation.layers import Layer
from tests.system.measurer.stage import Sidecar, Workload
from xds.errors import PeerError
from xds.peer import identify

LAST = Path("/proc/sys/kernel/ns_last_pid")
TRIES = 50
CONNECT = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"x"], [s.fileno()])
"""


def again(pid: int, *command: str) -> subprocess.Popen[bytes]:
    """Another process of this pid, whose first one was waited for."""
    for _ in range(TRIES):
        LAST.write_text(str(pid - 1))
        process = subprocess.Popen(command or ["sleep", "60"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"pid {pid} was not given out again")


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def a_guard_order_for_a_pid_that_is_somebody_elses_by_now(folder: str) -> None:
    workload, envoy = Workload(), subprocess.Popen(["sleep", "60"])
    with Sidecar(Scope(workload.pid, (folder,), deadman=30.0)) as sidecar:
        sidecar.settle()
        pidfd = os.pidfd_open(envoy.pid)
        ended(envoy)
        bystander = again(envoy.pid)
        sidecar.send(Guard(envoy.pid), pidfd)
        refused = sidecar.expect(CollectorFact, lambda each: each.collector == "guardian")
        assert refused.state is CollectorState.DEAD
        assert not sidecar.seen(Guarded)
    assert bystander.poll() is None, "the guardian acted on a bystander"
    ended(bystander)
    workload.end()


def a_workload_whose_pid_is_somebody_elses_by_now(folder: str) -> None:
    workload = Workload()
    with Sidecar(Scope(workload.pid, (folder,), deadman=30.0)) as sidecar:
        pinned, _ = sidecar.settle()
        workload.end()
        successor = again(workload.pid)
        sidecar.expect(InstanceFact)
    with Sidecar(Scope(successor.pid, (folder,), deadman=30.0)) as sidecar:
        other, _ = sidecar.settle()
        assert other.instance != pinned.instance
    ended(successor)


def a_process_of_the_workload_whose_pid_is_somebody_elses_by_now(folder: str) -> None:
    """With and without a descriptor for each process."""
    for first in ((), ("prlimit", "--nofile=140:140")):
        workload = Workload()
        workload.do("kept = [subprocess.Popen(['sleep', '60']) for _ in range(75)]")
        child = int(Path(f"/proc/{workload.pid}/task/{workload.pid}/children").read_text().split()[-1])
        with Sidecar(Scope(workload.pid, (folder,), deadman=30.0), first) as sidecar:
            sidecar.settle()
            workload.do("kept[-1].kill(); kept[-1].wait()")
            stranger = again(child, "tail", "-f", "/dev/null")
            sidecar.send(Measure((Layer.PROCESSES,), 0.0, True))
            sidecar.expect(Observed, lambda each: each.observation.layer is Layer.PROCESSES)
            body = next(
                body
                for message, body in reversed(sidecar.inbox)
                if isinstance(message, Observed) and message.observation.layer is Layer.PROCESSES and body is not None
            )
            running = {Path(kind.executable).name for kind in processes.unpack(body)}
            assert "tail" not in running, "a successor was measured as the workload's"
        ended(stranger)
        workload.do("[each.kill() or each.wait() for each in kept]")
        workload.end()


def a_connection_whose_maker_has_gone_and_left_its_pid_to_another(folder: str) -> None:
    """It stays open, because its maker handed it on; the kernel's pidfd is not of the successor."""
    path = f"{folder}/socket"
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        maker = subprocess.Popen(
            [sys.executable, "-c", CONNECT, path, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        _, (kept,), _, _ = socket.recv_fds(ours, 1, 1)
        connection, _ = listener.accept()
        maker.wait()
        successor = again(maker.pid)
        try:
            identify(connection)
        except PeerError:
            pass
        else:
            raise AssertionError("the successor was taken for the one that connected")
        os.close(kept)
        ended(successor)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        a_guard_order_for_a_pid_that_is_somebody_elses_by_now(folder)
        a_workload_whose_pid_is_somebody_elses_by_now(folder)
        a_process_of_the_workload_whose_pid_is_somebody_elses_by_now(folder)
        a_connection_whose_maker_has_gone_and_left_its_pid_to_another(folder)


if __name__ == "__main__":
    main()
