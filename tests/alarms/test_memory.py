"""What services have mapped as code raises nothing under what was learned of it, after a restart and under load."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from attestation import memory
from attestation.channel import Observed, Scope
from attestation.facts import MemoryFact
from attestation.layers import Layer
from attestation.memory import Code
from policies.appraise.memory import check_code
from policies.author.learning.outcome import references, rules
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from proofbeat.learning import watch
from proofbeat.learning.wishes import Until
from proofbeat.study import scope_of, studied
from tests.alarms.services import SERVICES, Service
from tests.alarms.stage import lay_out, pid_of
from tests.system.measurer.stage import Sidecar

LEARNING = float(os.environ.get("LEARNING", "5"))
SECONDS = float(os.environ.get("SECONDS", "60")) / 4
LOOKS = 0.5


@contextmanager
def running(service: Service, app: Path, port: int, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """With two clients that ask it all the time, and a reload now and then."""
    process = subprocess.Popen(command, cwd=app, start_new_session=True, stdout=subprocess.DEVNULL)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with suppress(OSError):
                for _ in service.ask(port):
                    if over.is_set():
                        return

    def reload() -> None:
        while not over.wait(1.0):
            with suppress(OSError, ValueError):
                service.reload(pid_of(app), app)

    end = time.monotonic() + 20
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        assert time.monotonic() < end, "it does not listen"
        time.sleep(0.05)
    busy = [threading.Thread(target=ask), threading.Thread(target=ask), threading.Thread(target=reload)]
    for each in busy:
        each.start()
    try:
        yield process
    finally:
        over.set()
        for each in busy:
            each.join()
        with suppress(ProcessLookupError):  # first the pod, which would start the service again
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(pid_of(app), signal.SIGKILL)
        process.wait()


async def learn(pid: int, app: Path) -> tuple[AttestationPolicy, ReferenceValues]:
    include = (str(app / "conf"),)
    async with studied(scope_of(pid, include, memory=LOOKS)) as study:
        watching = watch.begun(study, f"pid {pid}", include, ())
        await watch.learn([watching], Until(LEARNING))
        await watching.measure()
        learned = watching.learned()
    ruled = PolicySpec.model_validate(rules(learned))
    return AttestationPolicy(metadata=Metadata(name="learned"), spec=ruled), references("learned", learned)


def seen(pid: int, app: Path, seconds: float) -> set[Code]:
    """Everything that a measurer tells of its code in this time, by facts and in observations."""
    found: set[Code] = set()
    end = time.monotonic() + seconds
    with Sidecar(Scope(pid, (str(app / "conf"),), deadman=60.0, memory=LOOKS)) as sidecar:
        while (left := end - time.monotonic()) > 0:
            received = sidecar.receive(left)
            message, body = received if received is not None else (None, None)
            if isinstance(message, MemoryFact):
                found.add(message.code)
            if isinstance(message, Observed) and message.observation.layer is Layer.MEMORY and body is not None:
                found.update(memory.unpack(body))
    return found


@pytest.mark.timeout(LEARNING + SECONDS + 120)
@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_the_code_of_a_service_that_was_learned_raises_nothing_after_a_restart_under_load(service: Service) -> None:
    with tempfile.TemporaryDirectory() as folder:
        app, port, command = lay_out(service, Path(folder))
        with running(service, app, port, command) as first:
            policy, values = asyncio.run(learn(first.pid, app))
        with running(service, app, port, command) as second:
            code = seen(second.pid, app, SECONDS)
        assert code, "nothing was looked at"
        found = (check_code(each, policy, values) for each in code)
        assert [each.text for each in found if each is not None] == []
