"""A real authority, sidecar and measurer around a workload that attacks them, each as the user that a test gives it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from attestation.coverage import Isolation
from authority.store.records import InstanceState
from proofbeat import documents, study
from tests.system.authority.town import Clock, Town, town
from tests.system.measurer.stage import ROOT, Workload

PATIENCE = 15.0
DEADMAN = 1.0
REFUSED = "refused"
NAME = "web"
POISON, IDENTITY = "poison", f"spiffe://town.example/{NAME}"
ASK = """
import os, socket, sys, time
def ask(path):
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5)
        asking.connect(path)
        try:
            return "served" if asking.recv(1) else "refused"
        except ConnectionResetError:
            return "refused"
def orphan(act):
    if os.fork() == 0:
        middle = os.setsid() or os.getpid()
        if os.fork() == 0:
            while os.getppid() == middle: time.sleep(0.001)
            act()
        os._exit(0)
    os.wait()
def tell(folder, name, act):
    try:
        said = act()
    except Exception as error:
        said = type(error).__name__
    with open(f"{folder}/{name}.new", "w") as file:
        file.write(str(said))
    os.rename(f"{folder}/{name}.new", f"{folder}/{name}")
"""
"""What every attacker knows: asking for the key (the server speaks first to whom it admits), and telling us of it."""


def user(uid: int, *capabilities: str) -> tuple[str, ...]:
    """Before a command: another user, with these capabilities and no others."""
    given = ",".join(f"+{each}" for each in capabilities) or "-all"
    return (
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        f"--inh-caps={given}",
        f"--ambient-caps={given}",
    )


class Attacked(Workload):
    """A workload that somebody broke into. folder: where it writes what came of its acts."""

    def __init__(self, folder: Path, first: Sequence[str] = ()) -> None:
        self._folder, self._told = folder, 0
        super().__init__(first)
        for line in ASK.strip().split("\ndef "):
            head = line if line.startswith("import") else "def " + line
            self.do(f"exec({head!r}, globals())")

    def tries(self, expression: str) -> str:
        """What an expression comes to, or the name of the error that it raises."""
        self._told += 1
        self.do(f"tell({str(self._folder)!r}, {self._name!r}, lambda: {expression})")
        return self.heard()

    def starts_orphan(self, expression: str) -> None:
        """By a child that has lost its parent to init, in a session of its own. What comes of it is not heard."""
        self.do(f"orphan(lambda: {expression})")

    def heard(self) -> str:
        end = time.monotonic() + PATIENCE
        told = self._folder / self._name
        while not told.exists():
            assert time.monotonic() < end, "the attacker says nothing"
            time.sleep(0.01)
        return told.read_text()

    @property
    def _name(self) -> str:
        return f"told-{self._told}"


class Proxy:
    """Stands in for Envoy: takes the key, acknowledges all, and tells every certificate that it is given."""

    def __init__(self, socket: Path, first: Sequence[str] = (), python: Path | None = None) -> None:
        """python: a copy of our interpreter, whose libraries stay where they are."""
        itself = {} if python is None else {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [*first, str(python or sys.executable), "-m", "tests.system.attacks.proxy", str(socket)],
            cwd=ROOT,
            env={**os.environ, **itself},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def given(self) -> str:
        """The next certificate. Raises queue.Empty when none comes."""
        return self._lines.get(timeout=PATIENCE)

    def until_identity(self) -> None:
        while self.given() != IDENTITY:
            pass

    def until_poisoned(self) -> None:
        while self.given() != POISON:
            pass

    def killed(self) -> bool:
        """Whether it ends by SIGKILL."""
        return self.process.wait(PATIENCE) == -signal.SIGKILL

    def do(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.strip())


class TownHall:
    """The authority in a thread of its own. clock: its wall clock, which a test can move."""

    def __init__(self, folder: Path, rules: str) -> None:
        self.clock = Clock()
        self._ready: queue.Queue[Town] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(folder, rules),))
        self._thread.start()
        self.town = self._ready.get(timeout=PATIENCE)

    async def _run(self, folder: Path, rules: str) -> None:
        async with town(folder, clock=self.clock, rules=rules) as running:
            self._ready.put(running)
            await self._over.wait()

    def reload(self) -> None:
        """The policies are another epoch, and everybody with a session is told."""
        asyncio.run_coroutine_threadsafe(self.town.authority.reload_policies(), self._loop).result(PATIENCE)

    def instance(self) -> InstanceState:
        """The only one that is known here."""
        known = asyncio.run_coroutine_threadsafe(self.town.authority.instances(), self._loop)
        (only,) = known.result(PATIENCE)
        return only

    def attest_now(self) -> None:
        """Ask it for a round, once there is a session to ask on."""
        end = time.monotonic() + PATIENCE
        while not self._asked():
            assert time.monotonic() < end, "no session to ask on"
            time.sleep(0.02)

    def _asked(self) -> bool:
        asked = self.town.authority.attest_now(self.instance().instance)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(PATIENCE)

    def token(self, name: str = NAME) -> str:
        made = asyncio.run_coroutine_threadsafe(self.town.authority.create_token(name), self._loop)
        return made.result(PATIENCE)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()


@dataclass
class Scene:
    """What a test plays in. logs: what the sidecar has said, oldest first."""

    folder: Path
    workload: Attacked
    hall: TownHall
    sidecar: subprocess.Popen[str]
    logs: list[dict[str, Any]] = field(default_factory=list)
    _lines: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def socket(self) -> Path:
        return self.folder / "keys" / "xds.sock"

    @property
    def measurer(self) -> int:
        return int(self.until("started")["measurer"])

    def proxy(self, first: Sequence[str] = ()) -> Proxy:
        """One that holds the identity."""
        started = self.comer(first)
        started.until_identity()
        return started

    def comer(self, first: Sequence[str] = (), python: Path | None = None, at: Path | None = None) -> Proxy:
        """One that asks for the key, once there is somebody to ask. at: another name of the socket, once it is one."""
        self.until("started")
        started = Proxy(at or self.socket, first, python)
        self._undo.callback(started.end)
        return started

    def end(self) -> None:
        self._undo.close()

    def listen(self) -> None:
        """In a thread: every line that the sidecar writes."""
        assert self.sidecar.stderr
        for line in self.sidecar.stderr:
            if line.startswith("{"):
                self._lines.put(json.loads(line))
            else:
                sys.stderr.write(line)
        self._lines.put(None)

    def until(
        self,
        event: str,
        matching: Callable[[Mapping[str, Any]], bool] = lambda _: True,
        *,
        after: int = 0,
        seconds: float = PATIENCE,
    ) -> dict[str, Any]:
        """The first line of this event that matches. after: how many lines are passed over, as `len(logs)` said."""
        end, looked = time.monotonic() + seconds, after
        while True:
            for line in self.logs[looked:]:
                if line["event"] == event and matching(line):
                    return line
            looked = len(self.logs)
            try:
                said = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no such {event}; it said {[each['event'] for each in self.logs]}") from None
            if said is None:
                raise AssertionError(f"the sidecar ended without {event}; it said {self.logs[-3:]}")
            self.logs.append(said)

    def attested(self, rounds: int = 1) -> InstanceState:
        """What the authority knows after the next rounds, which are asked for one after the other."""
        end, known = time.monotonic() + PATIENCE, self.hall.instance()
        for _ in range(rounds):
            before = known.last_round_ms
            self.hall.attest_now()
            while (known := self.hall.instance()).last_round_ms == before:
                assert time.monotonic() < end, "no round is made"
                time.sleep(0.005)
        return known

    def until_open(self, after: int = 0) -> None:
        self.until("phase", lambda each: each["phase"] == "fresh", after=after)

    def until_quarantined(self, kind: str) -> dict[str, Any]:
        """Closed because of this violation."""
        told = self.until("violation", lambda each: each["kind"] == kind)
        self.until("phase", lambda each: each["phase"] == "quarantined")
        return told

    def isolation(self, holds: Callable[[Isolation], bool]) -> Isolation:
        """What the sidecar signs, once it is so."""
        told = self.until("coverage", lambda each: holds(Isolation(**each["isolation"])))
        return Isolation(**told["isolation"])


def policy(**changes: Any) -> str:
    spec = {
        "selector": {"registrations": [NAME]},
        "mode": "enforce",
        "interval": "500ms",
        "freshness": "20s",
        "deadman": f"{DEADMAN * 1000:.0f}ms",
        **changes,
    }
    head = {"apiVersion": "proofbeat.dev/v1alpha1"}
    ruled = {**head, "kind": "AttestationPolicy", "metadata": {"name": NAME}, "spec": spec}
    registered = {"spiffeId": f"spiffe://town.example/{NAME}", "references": NAME}
    registration = {**head, "kind": "WorkloadRegistration", "metadata": {"name": NAME}, "spec": registered}
    return yaml.safe_dump_all([ruled, registration])


@contextlib.contextmanager
def scene(
    *,
    workload: Sequence[str] = (),
    sidecar: Sequence[str] = (),
    owner: int = 0,
    envoys: Sequence[int] = (),
    cgroup: str = "",
    arguments: Sequence[str] = (),
    delivery: Mapping[str, Any] = MappingProxyType({}),
    measurer: Mapping[str, Any] = MappingProxyType({}),
    proxies: Sequence[str] = (),
    also: str = "",
    lay_out: Callable[[Path], Mapping[str, Any]] = lambda measured: {},
    **rules: Any,
) -> Iterator[Scene]:
    """A workload, measured and waiting to be attested. workload, sidecar: what their commands begin with.

    owner: whose the sidecar's folders are. envoys: users that may fetch the key; empty for the sidecar's own.
    arguments: what the sidecar's command ends with. delivery: settings of it, beside the socket and who may use it.
    measurer: settings of it, where it is not the sidecar's own.
    proxies: digests of what may hold the key. also: more documents for the authority. lay_out: puts into the measured
    folder what else is there, and says of what class it is.
    """
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="attack-")))
        folder.chmod(0o755)
        measured = folder / "app"
        measured.mkdir()
        (measured / "main").write_text("what is measured")
        classes = lay_out(measured)
        attacker = folder / "loot"
        attacker.mkdir()
        attacker.chmod(0o777)
        running = Attacked(attacker, workload)
        undo.callback(running.end)
        projected = tuple(classes.get("projected", ()))
        taken = asyncio.run(study.build(NAME, running.pid, (str(measured),), projected=projected))
        if proxies:
            taken = taken.model_copy(update={"spec": taken.spec.model_copy(update={"proxies": {"1": tuple(proxies)}})})
        ruled = policy(files={"include": [str(measured)], **classes}, **rules)
        document = f"{ruled}---\n{documents.to_yaml(taken)}"
        document = f"{document}---\n{also}" if also else document
        (folder / "authority").mkdir()
        hall = TownHall(folder / "authority", document)
        undo.callback(hall.end)
        config = _configured(
            folder, hall, running.pid, owner, cgroup, {"allow": {"uids": list(envoys)}, **delivery}, measurer
        )
        process = subprocess.Popen(
            [*sidecar, sys.executable, "-P", "-m", "proofbeat", "sidecar", "-c", str(config), *arguments],
            cwd=folder / "keys",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        playing = Scene(folder, running, hall, process)
        undo.callback(playing.end)
        listening = threading.Thread(target=playing.listen)
        listening.start()
        undo.callback(_end, process, listening)
        yield playing


def _configured(
    folder: Path,
    hall: TownHall,
    pid: int,
    owner: int,
    cgroup: str,
    delivery: Mapping[str, Any],
    measurer: Mapping[str, Any],
) -> Path:
    for name in ("keys", "state"):
        (folder / name).mkdir()
        os.chown(folder / name, owner, owner)
    bundle, token = folder / "bundle.pem", folder / "token"
    bundle.write_text(hall.town.where.bundle)
    token.write_text(hall.token())
    config = {
        "trustDomain": hall.town.where.trust_domain,
        "authority": {"url": hall.town.where.url, "bundle": str(bundle)},
        "enrolment": {"joinTokenFile": str(token)},
        "workload": {"pid": pid, "cgroup": cgroup},
        "delivery": {"socket": str(folder / "keys" / "xds.sock"), "socketMode": 0o666, **delivery},
        "measurer": dict(measurer),
        "state": str(folder / "state" / "own"),
    }
    file = folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def _end(process: subprocess.Popen[str], listening: threading.Thread) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    listening.join()
