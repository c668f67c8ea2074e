"""Everybody below somebody who is marked is marked, whatever happens while we look: over random histories of a kernel.

The kernel of the model marks children of whom it has marked, and tells their forks; of others' it tells while we look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from measurer.processes.marks import until_all_are_marked
from measurer.processes.membership import Member, Membership, Workload
from measurer.processes.proc import Stat
from tests.unit.measurer.test_membership import ELSEWHERE, GROUP, INIT, PIDS, Kernel, Running, Seen

FORK, EXIT = range(2)


@dataclass
class MarkingKernel(Kernel):
    """marked: when those began that have a mark, for a pid is given again. workload: what their mark says."""

    marked: set[int] = field(default_factory=set)
    workload: Workload[Seen] = field(default_factory=Workload)
    seeking: bool = False

    def fork(self, maker: Running, *, sideways: bool = False) -> Running | None:
        child = self.born(maker.pid, maker.session, 0, maker.cgroup, maker.ours)
        if child is None:
            return None
        pid, parent, at = child.pid, maker.pid, self.clock
        if maker.start in self.marked:
            self.marked.add(child.start)
            self.events.append(lambda membership: membership.told(self.workload, pid, parent, at))
        elif self.seeking:
            self.events.append(lambda membership: membership.forked(parent, pid, at))
        return child

    def exit(self, who: Running) -> None:
        before = len(self.events)
        super().exit(who)
        del self.events[before:]
        if who.start in self.marked:
            self.events.append(lambda membership: let_go(membership, who.pid))


def let_go(membership: Membership[Seen], pid: int) -> None:
    member = membership.of(pid)
    if member is not None:
        membership.has_ended(member)


class World:
    """A process with descendants that begins to be measured, beside strangers. meanwhile: done at each step of ours."""

    def __init__(self) -> None:
        self.kernel = MarkingKernel()
        self.kernel.table[INIT] = Running(INIT, 0, 0, INIT, 0, ELSEWHERE, ours=False)
        first, stranger = (self.kernel.born(INIT, 0, 0, place, ours) for place, ours in ((GROUP, True), (GROUP, False)))
        assert first is not None
        assert stranger is not None
        self.first = first
        self.meanwhile: Callable[[], None] = lambda: None
        self.given = 0
        self.membership = Membership(self._hold, self._found)

    def begin(self) -> None:
        assert self.membership.begin(self.kernel.workload, self.kernel.hold(self.first.pid, self.kernel.clock))

    def settle(self) -> bool:
        self.kernel.seeking = True
        settled = until_all_are_marked(self._look, self.take_in, lambda: self.given)
        self.kernel.seeking = False
        self.take_in()
        return settled

    def take_in(self) -> None:
        self.kernel.tell(self.membership)

    def _look(self) -> None:
        self.membership.look_at_all(dict(self._table()))

    def _table(self) -> Iterator[tuple[int, Stat]]:
        """As a folder is read: one after the other, while things go on."""
        for pid in (INIT, *PIDS):
            self.meanwhile()
            each = self.kernel.table.get(pid)
            if each is not None:
                yield pid, Stat("S", each.parent, each.session, each.start)

    def _hold(self, pid: int, at: float) -> Seen:
        self.meanwhile()
        return self.kernel.hold(pid, at)

    def _found(self, member: Member[Seen]) -> None:
        self.meanwhile()
        who = member.process.running
        if who is not None and who.alive and who.start not in self.kernel.marked:
            self.kernel.marked.add(who.start)
            self.given += 1
        self.meanwhile()

    def happen(self, act: int, number: int) -> None:
        running = [each for each in self.kernel.table.values() if each.pid != INIT]
        if not running:
            return
        who = running[number % len(running)]
        if act == FORK:
            self.kernel.fork(who)
        elif who is not self.first:
            self.kernel.exit(who)

    @property
    def members(self) -> set[int]:
        held = [each.process.running for each in self.kernel.workload.members.values()]
        return {each.start for each in held if each is not None and each.alive}

    @property
    def marked(self) -> set[int]:
        return {each.start for each in self.kernel.table.values() if each.start in self.kernel.marked}

    @property
    def missed(self) -> set[int]:
        """Who has no mark, and a parent with one."""
        table = self.kernel.table
        below = [each for each in table.values() if each.parent in table and table[each.parent].start in self.marked]
        return {each.start for each in below} - self.marked


acts = st.tuples(st.sampled_from((FORK, FORK, EXIT)), st.integers(0, 40))
histories = st.lists(acts, max_size=40)
paced = st.lists(st.tuples(st.integers(0, 8), acts), max_size=40)


@settings(max_examples=300, deadline=None)
@given(before=histories, during=paced, after=histories)
def test_whoever_is_below_somebody_with_a_mark_has_one_and_is_a_member_once_a_look_has_found_nobody_new(
    before: list[tuple[int, int]], during: list[tuple[int, tuple[int, int]]], after: list[tuple[int, int]]
) -> None:
    """during: steps of ours to pass, and what happens then."""
    world = World()
    for act in before:
        world.happen(*act)
    coming = deque(each for steps, act in during for each in (*[None] * steps, act))

    def one_step() -> None:
        act = coming.popleft() if coming else None
        if act is not None:
            world.happen(*act)

    world.meanwhile = one_step
    world.begin()
    assume(world.settle())
    for each in (*filter(None, coming), *after):
        world.happen(*each)
        assert not world.missed
    coming.clear()
    world.take_in()
    assert world.members == world.marked
    assert world.marked <= {each.start for each in world.kernel.table.values() if each.ours}


def test_who_is_made_by_one_that_passes_before_its_maker_is_marked_is_a_member() -> None:
    """It is nobody's child by the time that anybody looks: only its fork tells whose it is. So it is with what it makes
    itself before it gets its mark.
    """
    world = World()
    child = world.kernel.fork(world.first)
    assert child is not None
    world.begin()
    made: list[Running] = []

    def pass_by() -> None:
        if not made and world.kernel.seeking and child.start not in world.kernel.marked:
            middle = forked(world, child)
            made.append(forked(world, middle))
            world.kernel.exit(middle)
        elif len(made) == 1 and world.membership.of(made[0].pid) is not None:
            made.append(forked(world, made[0]))

    world.meanwhile = pass_by
    assert world.settle()
    assert [each.parent for each in made] == [INIT, made[0].pid]
    assert world.members == world.marked == {world.first.start, child.start, *(each.start for each in made)}


def test_who_makes_another_one_each_time_just_before_it_is_marked_is_caught_up_with() -> None:
    world = World()
    youngest = forked(world, world.first)
    world.begin()
    line = [youngest]

    def fork_on() -> None:
        if len(line) < 5 and line[-1].start not in world.kernel.marked and world.membership.of(line[-1].pid):
            line.append(forked(world, line[-1]))

    world.meanwhile = fork_on
    assert world.settle()
    assert len(line) == 5
    assert world.members == world.marked == {world.first.start, *(each.start for each in line)}


def forked(world: World, maker: Running) -> Running:
    child = world.kernel.fork(maker)
    assert child is not None
    return child


def test_marks_that_go_on_to_be_given_are_no_end_of_looking() -> None:
    given = iter(range(1000))
    assert not until_all_are_marked(lambda: None, lambda: None, lambda: next(given))
    assert until_all_are_marked(lambda: None, lambda: None, lambda: 7)
