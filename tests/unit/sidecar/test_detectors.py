"""Somebody else's detectors at the sidecar: whom they speak of, whether they are heard, and what a line may cost."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.channel import Owned, Whose
from attestation.detectors import relay
from attestation.detectors.alerts import About, Alert, Detector, Heard, Sign, Whereabouts
from attestation.detectors.reading import MOST_BYTES
from attestation.detectors.relay import Dropped, Relays, Taken, Turned
from attestation.facts import Actor, AlertFact, CollectorFact, CollectorState
from sidecar.config import AllowSettings, DetectorSettings, KnownAs, WorkloadSettings
from sidecar.detectors import intake
from sidecar.detectors.intake import MOST_CONNECTIONS, AlertSocket
from sidecar.detectors.lines import Allowance, Lines
from sidecar.detectors.questions import MOST_WAITING, Questions
from sidecar.detectors.sorting import BURST, MOST_REMEMBERED, Sorting
from sidecar.detectors.standing import SETTLED, Standing
from sidecar.detectors.whereabouts import named_by, whereabouts
from sidecar.states import Now
from tests.unit.attestation.alerting import CONTAINER, POD_UID, falco, line, tetragon

NOW = Now(1000.0, 1_700_000_000.0)
HERE = Whereabouts(container=CONTAINER)
OLDEST = 60.0
INSIDE = About(container=CONTAINER[:12])


# Where the workload runs.


@pytest.mark.parametrize(
    ("group", "container", "pod"),
    [
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_UID.replace('-', '_')}.slice"
         f"/cri-containerd-{CONTAINER}.scope", CONTAINER, POD_UID),
        (f"/kubepods/besteffort/pod{POD_UID}/{CONTAINER}", CONTAINER, POD_UID),
        (f"/kubepods.slice/kubepods-pod{POD_UID.replace('-', '_')}.slice/crio-{CONTAINER}.scope", CONTAINER, POD_UID),
        (f"/system.slice/docker-{CONTAINER}.scope", CONTAINER, ""),
        (f"/machine.slice/libpod-{CONTAINER}.scope/container", CONTAINER, ""),
        (f"/docker/{'0' * 64}/kubepods/pod{POD_UID}/{CONTAINER}", CONTAINER, POD_UID),
        ("/../cri-containerd-" + CONTAINER + ".scope", CONTAINER, ""),
        ("/user.slice/user-1000.slice/session-2.scope", "", ""),
        ("/", "", ""),
    ],
)  # fmt: skip
def test_container_and_pod_are_read_out_of_the_names_that_runtimes_give_control_groups(
    group: str, container: str, pod: str
) -> None:
    assert named_by([group]) == (container, pod)


def test_what_settings_say_goes_before_what_is_found() -> None:
    workload = WorkloadSettings(pid=os.getpid(), cgroup=f"/kubepods/pod{POD_UID}/{CONTAINER}")
    assert whereabouts(workload, KnownAs(), of_the_node=True).container == CONTAINER
    known = KnownAs(container="0" * 64, pod_uid=POD_UID.upper(), namespace="default", pod="web", node="node-1")
    found = whereabouts(workload, known, of_the_node=True)
    assert found == Whereabouts("0" * 64, POD_UID, "default", "web", "node-1", pids=True)


# Sorted.


@dataclass
class Sorted:
    """What sorting comes to. asked: of the measurer."""

    where: Whereabouts = HERE
    now: Now = NOW
    facts: list[AlertFact] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    missed: list[Alert] = field(default_factory=list)
    asked: list[Whose] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.questions = Questions(self.asked.append)
        self.sorting = Sorting(
            self.where,
            OLDEST,
            self.questions,
            now=lambda: self.now,
            saw=self.facts.append,
            count=lambda _, outcome: self.counted.append(outcome),
            missed=lambda alert, _: self.missed.append(alert),
        )

    def take(self, alert: Alert, *, here: bool = True) -> None:
        self.sorting.take(alert, here=here)


def raised(*, ago: float = 0.5, number: int = 0, about: About = INSIDE) -> Alert:
    at_ms = round((NOW.wall - ago) * 1000)
    return Alert(Detector.FALCO, "Terminal shell", f"a shell {number}", at_ms, about)


def test_an_alert_about_this_workload_is_a_fact_of_the_moment_at_which_it_came() -> None:
    found = Sorted()
    found.take(raised())
    assert found.facts == [AlertFact(NOW.boot, raised(), named=True)]
    assert found.counted == ["ours"]


def test_one_about_another_is_counted_and_nothing_else() -> None:
    found = Sorted()
    found.take(raised(about=About(container="0" * 12, pid=os.getpid())))
    assert (found.facts, found.asked, found.counted) == ([], [], ["others"])


@pytest.mark.parametrize(("ago", "outcome"), [(OLDEST - 1, "ours"), (OLDEST + 1, "old"), (-OLDEST - 1, "old")])
def test_what_is_played_back_from_the_past_or_the_future_changes_nothing(ago: float, outcome: str) -> None:
    found = Sorted()
    found.take(raised(ago=ago))
    assert found.counted == [outcome]


def test_the_same_alert_is_a_fact_once_whichever_way_it_comes() -> None:
    found = Sorted()
    for here in (True, False, True):
        found.take(raised(), here=here)
    assert found.counted == ["ours", "repeated", "repeated"]


def test_what_is_remembered_of_alerts_is_bounded() -> None:
    found = Sorted()
    for number in range(MOST_REMEMBERED + 1):
        found.now = replace(NOW, boot=NOW.boot + number)
        found.take(raised(number=number))
    found.take(raised(number=1))
    found.take(raised(number=0))
    assert found.counted[-2:] == ["repeated", "ours"]


@pytest.mark.parametrize(
    ("workload", "counted", "named"), [(True, "ours", True), (None, "unnamed", False), (False, "others", None)]
)
def test_of_a_pid_the_measurer_is_asked_whose_it_was_at_that_time(
    workload: bool | None, counted: str, named: bool | None
) -> None:
    found = Sorted(where=Whereabouts(pids=True))
    found.take(raised(ago=0.5, about=About(host=True, pid=7)))
    (asked,) = found.asked
    assert asked.pid == 7
    assert asked.by == pytest.approx(NOW.boot - 0.5, abs=0.002)
    assert found.facts == []
    process = Actor(7, "/bin/sh") if workload else None
    for _ in range(2):  # an answer counts once
        found.questions.answered(Owned(asked.number, workload, process))
    assert found.counted == [counted]
    assert [(each.named, each.process) for each in found.facts] == ([] if named is None else [(named, process)])


def test_without_a_measurer_nobody_can_tell_whose_a_pid_was() -> None:
    found = Sorted(where=Whereabouts(pids=True))
    found.take(raised(about=About(pid=7)))
    found.questions.forget()
    assert found.counted == ["unnamed"]


def test_no_more_is_asked_at_once_than_can_be_kept() -> None:
    asked: list[Whose] = []
    answers: list[bool | None] = []
    questions = Questions(asked.append)
    for _ in range(MOST_WAITING + 1):
        questions.ask(7, 1.0, lambda workload, _: answers.append(workload))
    assert (len(asked), answers) == (MOST_WAITING, [None])


def test_a_flood_about_this_workload_is_a_bounded_number_of_facts_and_told_as_a_loss() -> None:
    found = Sorted()
    for number in range(int(BURST) + 5):
        found.take(raised(number=number))
    assert len(found.facts) == BURST
    assert len(found.missed) == 5
    assert found.counted.count("dropped") == 5


# Heard.


@dataclass
class Ear:
    """What standing tells, of one detector that policy names."""

    silence: float | None = None
    told: list[CollectorState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.standing = Standing(self._tell)
        self.standing.rule({Detector.FALCO: self.silence})

    def _tell(self, fact: CollectorFact) -> None:
        assert fact.collector == "detectors.falco"
        self.told.append(fact.state)

    def running(self, now: float) -> bool:
        (covered,) = self.standing.coverage(now)
        return covered.running


RUNNING, DEAD, OVERFLOWED = CollectorState.RUNNING, CollectorState.DEAD, CollectorState.OVERFLOWED


def test_a_detector_is_heard_while_a_connection_brings_it() -> None:
    heard = Ear()
    heard.standing.joined(Detector.FALCO, 1.0)
    heard.standing.joined(Detector.FALCO, 2.0)
    heard.standing.left(Detector.FALCO, 3.0)
    assert heard.running(3.0)
    heard.standing.left(Detector.FALCO, 4.0)
    assert not heard.running(4.0)
    assert heard.told == [RUNNING, DEAD]


def test_that_one_has_not_come_yet_is_told_only_where_traffic_flows_without_it() -> None:
    heard = Ear()
    heard.standing.look(0.0)
    assert (heard.told, heard.running(0.0)) == ([], False)
    heard.standing.look(1.0, is_open=True)
    assert heard.told == [DEAD]


def test_where_policy_says_how_long_it_may_be_silent_a_connection_alone_does_not_do() -> None:
    heard = Ear(silence=60.0)
    heard.standing.joined(Detector.FALCO, 0.0)
    heard.standing.heard(Detector.FALCO, 50.0)
    for now in (109.0, 111.0):
        heard.standing.look(now)
    heard.standing.heard(Detector.FALCO, 112.0)
    assert heard.told == [RUNNING, DEAD, RUNNING]


@pytest.mark.parametrize("counts", [[5, 5, 9], [None, 9]])
def test_what_it_says_it_dropped_counts_from_when_it_was_heard_first(counts: list[int | None]) -> None:
    heard = Ear()
    heard.standing.joined(Detector.FALCO, 0.0)
    for number, dropped in enumerate(counts):
        heard.standing.heard(Detector.FALCO, float(number), dropped)
    assert heard.told == ([RUNNING, OVERFLOWED] if counts[0] is not None else [RUNNING])


def test_after_a_loss_it_counts_as_heard_again_once_none_has_followed_for_a_while() -> None:
    heard = Ear()
    heard.standing.joined(Detector.FALCO, 0.0)
    for now in (1.0, 5.0):
        heard.standing.missed(Detector.FALCO, "a line was lost", now)
    assert not heard.running(4.9 + SETTLED)
    heard.standing.look(5.1 + SETTLED)
    assert heard.told == [RUNNING, OVERFLOWED, RUNNING]
    assert heard.standing.coverage(100.0)[0].lost == 2


def test_evidence_speaks_of_those_that_policy_names_and_of_no_other() -> None:
    standing = Standing(lambda _: None)
    standing.joined(Detector.TETRAGON, 0.0)
    assert standing.coverage(1.0) == ()


# Lines.


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.integers(1, 40))
def test_lines_are_the_same_however_their_bytes_come(data: bytes, cuts: list[int], most: int) -> None:
    def cut(pieces: Iterable[bytes]) -> tuple[list[bytes | None], bool]:
        lines = Lines(most)
        return [each for piece in pieces for each in lines.cut(piece)], lines.half

    places = [0, *sorted(cuts), len(data)]
    whole = cut([data])
    assert cut(data[one:other] for one, other in pairwise(places)) == whole
    *ended, rest = data.split(b"\n")
    assert whole == ([each if len(each) <= most else None for each in ended], bool(rest))


def test_of_a_line_without_end_no_more_is_kept_than_a_line_may_have() -> None:
    lines = Lines(10)
    for _ in range(100):
        assert list(lines.cut(b"x" * 7)) == []
        assert len(lines._begun) <= 10
    assert list(lines.cut(b"\nnext\n")) == [None, b"next"]


def test_an_allowance_is_what_was_saved_up_and_no_more() -> None:
    allowance = Allowance(2.0, 3.0, 0.0)
    assert [allowance.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.take(0.6), allowance.take(0.6)] == [True, False]
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]


# The socket.


@dataclass
class Listener:
    """An owner that remembers. answer: what the measurer says of whoever calls."""

    answer: bool | None = False
    said: list[Heard] = field(default_factory=list)
    joined_: list[Detector] = field(default_factory=list)
    left_: list[Detector] = field(default_factory=list)
    missed_: list[str] = field(default_factory=list)
    refused_: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def heard(self, heard: Heard) -> None:
        self.said.append(heard)
        self.news.set()

    def joined(self, detector: Detector) -> None:
        self.joined_.append(detector)

    def left(self, detector: Detector) -> None:
        self.left_.append(detector)

    def missed(self, detector: Detector | None, why: str) -> None:
        self.missed_.append(why)
        self.news.set()

    def refused(self, why: str) -> None:
        self.refused_.append(why)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.news.clear()
            await self.news.wait()

    def questions(self) -> Questions:
        made: list[Questions] = []
        made.append(Questions(lambda whose: made[0].answered(Owned(whose.number, self.answer))))
        return made[0]


class Caller:
    """A relay, or whoever poses as one, on the event loop."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.setblocking(False)
        self._came = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def until(self, *words: relay.Word) -> list[relay.Word]:
        """Everything that is answered up to the last of these."""
        while not self.words() or self.words()[-1] not in words:
            more = await asyncio.get_running_loop().sock_recv(self._socket, 65_536)
            assert more, f"it was hung up after {self.words()}"
            self._came += more
        return self.words()

    async def until_hung_up(self) -> list[relay.Word]:
        while more := await asyncio.get_running_loop().sock_recv(self._socket, 65_536):
            self._came += more
        return self.words()

    def words(self) -> list[relay.Word]:
        found = (relay.decode(each) for each in self._came.split(b"\n")[:-1])
        return [each for each in found if each is not None]

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "detectors.sock"


@pytest.fixture
def workload() -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "3600"]) as running:
        yield running.pid
        running.kill()


def listening(path: Path, workload: int, owner: Listener, **allow: object) -> AlertSocket:
    settings = DetectorSettings(socket=path, allow=AllowSettings.model_validate(allow))
    made = AlertSocket(settings, WorkloadSettings(pid=workload), owner, owner.questions())
    made.start(asyncio.get_running_loop())
    return made


def test_each_line_is_read_and_counted_and_whoever_leaves_is_told_of(path: Path, workload: int) -> None:
    async def scenario() -> None:
        owner = Listener()
        here = listening(path, workload, owner)
        caller = Caller(path)
        await caller.send(relay.encode(Relays(Detector.TETRAGON)) + line(tetragon()) + b"\n\n" + line(falco())[:20])
        await caller.until(Taken(2))
        await caller.send(line(falco())[20:] + b"\n")
        await caller.until(Taken(3))
        assert [each.detector for each in owner.said] == [Detector.TETRAGON, Detector.FALCO]
        assert owner.joined_ == [Detector.TETRAGON, Detector.FALCO]
        caller.end()
        assert await caller.until_hung_up() == [Taken(2), Taken(3)]
        assert set(owner.left_) == {Detector.TETRAGON, Detector.FALCO}
        assert owner.missed_ == []
        here.close()

    asyncio.run(scenario())
    assert not path.exists()


@pytest.mark.parametrize(
    "spoilt",
    [
        b"x" * (MOST_BYTES + 1),
        line(falco(output="x" * MOST_BYTES)),
        b"\xff\xfe",
        b"[" * 60_000,
        b"{",
        relay.encode(Taken(1))[:-1],
    ],
    ids=["too long", "an alert too long", "no UTF-8", "deep", "half", "a sidecar's word"],
)
def test_a_line_that_is_none_is_told_as_a_loss_and_the_next_one_is_read(
    path: Path, workload: int, spoilt: bytes
) -> None:
    async def scenario() -> None:
        owner = Listener()
        here = listening(path, workload, owner)
        caller = Caller(path)
        await caller.send(line(falco()) + b"\n" + spoilt + b"\n" + line(falco(rule="Next")) + b"\n")
        await owner.until(lambda: len(owner.said) == 2)
        assert len(owner.missed_) == 1
        assert [each.rule for each in owner.said if isinstance(each, Alert)][-1] == "Next"
        here.close()

    asyncio.run(scenario())


def test_a_line_that_never_ends_and_lines_that_were_given_up_are_losses(path: Path, workload: int) -> None:
    async def scenario() -> None:
        owner = Listener()
        here = listening(path, workload, owner)
        caller = Caller(path)
        await caller.send(relay.encode(Relays(Detector.FALCO)) + relay.encode(Dropped(3)) + b'{"rule"')
        caller.end()
        (told,) = await caller.until_hung_up()
        assert told == Turned(1, "a line without its end")
        assert len(owner.missed_) == 2 and "3 lines" in owner.missed_[0]
        here.close()

    asyncio.run(scenario())


def test_another_user_the_workload_and_an_unlisted_program_are_not_let_in_and_told_why(
    path: Path, workload: int
) -> None:
    async def scenario() -> None:
        for owner, allow, why in (
            (Listener(), {"uids": [os.getuid() + 1]}, "detectors.allow.uids"),
            (Listener(), {"executables": ["0" * 64]}, "detectors.allow.executables"),
            (Listener(answer=True), {}, "belongs to the workload"),
        ):
            here = listening(path, workload, owner, **allow)
            caller = Caller(path)
            (told,) = await caller.until_hung_up()
            assert isinstance(told, Turned) and told.line == 0 and why in told.why
            assert len(owner.refused_) == 1 and why in owner.refused_[0]
            assert (owner.joined_, owner.said) == ([], [])
            caller.close()
            here.close()

    asyncio.run(scenario())


def test_more_connections_than_there_is_room_for_are_turned_away_and_room_is_made_by_who_leaves(
    path: Path, workload: int
) -> None:
    async def scenario() -> None:
        owner = Listener()
        here = listening(path, workload, owner)
        callers = [Caller(path) for _ in range(MOST_CONNECTIONS)]
        for caller in callers:
            await caller.send(line(falco()) + b"\n")
            await caller.until(Taken(1))
        (told,) = await Caller(path).until_hung_up()
        assert isinstance(told, Turned) and "connections" in told.why
        callers[0].end()
        await callers[0].until_hung_up()
        late = Caller(path)
        await late.send(line(falco()) + b"\n")
        await late.until(Taken(1))
        here.close()

    asyncio.run(scenario())


def test_a_flood_is_told_as_a_loss_and_everything_else_has_its_turn(
    path: Path, workload: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow enough that being behind is seen at once: the bound is a setting of the module, not of this machine."""
    monkeypatch.setattr(intake, "BURST", 50.0)
    monkeypatch.setattr(intake, "BEHIND", 0.0)

    async def scenario() -> None:
        owner = Listener()
        here = listening(path, workload, owner)
        caller = Caller(path)
        async with asyncio.TaskGroup() as tasks:
            flooding = tasks.create_task(caller.send((json.dumps({"rule": 1}).encode() + b"\n") * 100_000))
            await owner.until(lambda: "alerts come faster than they are read" in owner.missed_)
            assert not flooding.done(), "whoever floods waits; nobody else does"
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(owner.missed_) < 200, "and no more is looked at than is allowed"
            flooding.cancel()
        here.close()

    asyncio.run(scenario())


def test_without_a_socket_in_the_settings_nobody_is_listened_to(workload: int) -> None:
    async def scenario() -> None:
        owner = Listener()
        made = AlertSocket(DetectorSettings(), WorkloadSettings(pid=workload), owner, owner.questions())
        made.start(asyncio.get_running_loop())
        made.close()

    asyncio.run(scenario())


def test_a_sign_of_life_is_heard_as_one(path: Path, workload: int) -> None:
    async def scenario() -> None:
        owner = Listener()
        here = listening(path, workload, owner)
        caller = Caller(path)
        await caller.send(line(falco(rule="Falco internal: metrics snapshot")) + b"\n")
        await caller.until(Taken(1))
        assert [type(each) for each in owner.said] == [Sign]
        here.close()

    asyncio.run(scenario())
