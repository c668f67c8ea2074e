"""Who belongs to a workload, over random histories of a kernel in which pids are scarce and events arrive late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from measurer.processes.membership import Member, Membership, Workload
from measurer.processes.proc import Stat

PIDS = range(2, 12)
"""So few that every pid is soon given out again."""
INIT, GROUP, ELSEWHERE = 1, "/kubepods/web", "/system.slice"
PLACE = (0, GROUP)


@dataclass(eq=False)
class Running:
    """One process of the model. ours: whether it descends from the workload's first process, or entered its cgroup."""

    pid: int
    parent: int
    start: int
    session: int
    image: int
    cgroup: str
    ours: bool
    maker: Running | None = None
    entered: bool = False
    sent_in: bool = False
    """A child of it entered the cgroup."""
    alive: bool = True
    home: int = 0
    """Its mount namespace."""

    @property
    def kin(self) -> bool:
        return self.ours or self.entered or (self.maker is not None and (self.maker.kin or self.maker.sent_in))


class Seen:
    """What a descriptor of a /proc folder shows: of one process, whoever has its pid by now."""

    def __init__(self, pid: int, running: Running | None) -> None:
        self.pid, self.running, self.closed = pid, running, False

    @property
    def _now(self) -> Running | None:
        return self.running if self.running is not None and self.running.alive and not self.closed else None

    def stat(self) -> Stat | None:
        now = self._now
        return Stat("S", now.parent, now.session, now.start) if now is not None else None

    def cgroups(self) -> bytes:
        return f"0::{self._now.cgroup}\n".encode() if self._now is not None else b""

    def home(self) -> tuple[int, int] | None:
        return (0, self._now.home) if self._now is not None and self._now.home else None

    def children(self) -> list[int] | None:
        return None

    def over(self) -> bool:
        return self._now is None

    def close(self) -> None:
        self.closed = True


@dataclass
class Kernel:
    """events: told in their order, whenever somebody reads them."""

    clock: int = 0
    table: dict[int, Running] = field(default_factory=dict)
    events: list[Callable[[Membership[Seen]], object]] = field(default_factory=list)
    held: list[Seen] = field(default_factory=list)

    def hold(self, pid: int, at: float) -> Seen:
        running = self.table.get(pid)
        seen = Seen(pid, running if running is not None and running.start <= at else None)
        self.held.append(seen)
        return seen

    def born(self, parent: int, session: int, image: int, cgroup: str, ours: bool) -> Running | None:
        taken = self.table.keys() | {
            each.session for each in self.table.values()
        }  # as alloc_pid in kernel/pid.c has it
        free = next((pid for pid in PIDS if pid not in taken), None)
        if free is None:
            return None
        self.clock += 1
        self.table[free] = Running(free, parent, self.clock, session or free, image, cgroup, ours)
        return self.table[free]

    def fork(self, maker: Running, *, sideways: bool = False) -> Running | None:
        parent = maker.parent if sideways else maker.pid
        child = self.born(parent, maker.session, maker.image, maker.cgroup, maker.ours)
        if child is not None:
            child.maker = maker
            pid, at = child.pid, self.clock
            self.events.append(lambda membership: membership.forked(parent, pid, at))
        return child

    def execute(self, who: Running, image: int) -> None:
        self.clock += 1
        who.image, pid, at = image, who.pid, self.clock
        who.ours = who.ours or who.cgroup == GROUP
        self.events.append(lambda membership: membership.executed(pid, at))

    def begin_session(self, who: Running) -> None:
        who.session, pid = who.pid, who.pid
        self.events.append(lambda membership: membership.began_session(pid))

    def exit(self, who: Running) -> None:
        who.alive = False
        del self.table[who.pid]
        for child in self.table.values():
            if child.parent == who.pid:
                child.parent = INIT
        self.events.append(lambda membership: membership.exits(who.pid))
        self.events.append(lambda membership: membership.ended(who.pid))

    def tell(self, membership: Membership[Seen], count: int | None = None) -> None:
        now, self.events = self.events[:count], self.events[len(self.events[:count]) :]
        for event in now:
            event(membership)


@dataclass
class World:
    """A workload, and a stranger beside it, both children of init."""

    place: tuple[int, str] | None = None
    kernel: Kernel = field(default_factory=Kernel)

    def __post_init__(self) -> None:
        init = Running(INIT, 0, 0, INIT, 0, ELSEWHERE, ours=False)
        self.kernel.table[INIT] = init
        first = self.kernel.born(INIT, 0, 1, GROUP, ours=True)
        stranger = self.kernel.born(INIT, 0, 2, ELSEWHERE, ours=False)
        assert first is not None
        assert stranger is not None
        self.membership = Membership(self.kernel.hold)
        self.workload: Workload[Seen] = Workload(self.place)
        assert self.membership.begin(self.workload, self.kernel.hold(first.pid, 1)) is not None

    def who(self, number: int) -> Running:
        """One of those that run, but never init."""
        running = [each for each in self.kernel.table.values() if each.pid != INIT]
        return running[number % len(running)] if running else self.kernel.table[INIT]

    def look(self) -> tuple[Member[Seen], ...]:
        inside = [each.pid for each in self.kernel.table.values() if each.cgroup == GROUP]
        for pid in inside:
            self.kernel.table[pid].ours = True
        return self.membership.look_into(self.workload, inside).left

    @property
    def members(self) -> set[int]:
        """When those began that are counted as ours and still run."""
        held = [each.process.running for each in self.workload.members.values()]
        return {each.start for each in held if each is not None and each.alive}

    @property
    def kin(self) -> set[int]:
        """Those that are ours, or whose makers were by the time that anybody looked."""
        return {each.start for each in self.kernel.table.values() if each.kin}

    @property
    def truth(self) -> set[int]:
        return {each.start for each in self.kernel.table.values() if each.ours}


FORK, SIDEWAYS, EXEC, EXIT, SESSION, MOVE, TELL = range(7)


def histories(*acts: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.sampled_from(acts), st.integers(0, 40)), max_size=60)


def happen(world: World, act: int, number: int) -> None:
    kernel, who = world.kernel, world.who(number)
    if act == TELL:
        kernel.tell(world.membership, number % 4)
    elif who.pid == INIT:
        return
    elif act in (FORK, SIDEWAYS):
        kernel.fork(who, sideways=act == SIDEWAYS)
    elif act == EXEC:
        kernel.execute(who, 2 * number + who.ours)  # nobody runs what somebody else's workload runs
    elif act == EXIT:
        kernel.exit(who)
    elif act == SESSION:
        kernel.begin_session(who)
    else:
        who.cgroup = GROUP if who.cgroup != GROUP else ELSEWHERE
        who.entered = who.entered or who.cgroup == GROUP
        if who.entered and who.maker is not None:
            who.maker.sent_in = True


@settings(max_examples=150, deadline=None)
@given(histories(FORK, FORK, EXEC, EXIT, SESSION, TELL))
def test_members_are_the_descendants_and_nobody_else_however_late_events_come(history: list[tuple[int, int]]) -> None:
    world = World()
    for act, number in history:
        happen(world, act, number)
        assert world.members <= world.truth, "a stranger counts as ours"
    world.kernel.tell(world.membership)
    assert world.members == world.truth


@settings(max_examples=150, deadline=None)
@given(histories(FORK, EXEC, EXIT, MOVE, MOVE, TELL))
def test_whoever_was_in_the_cgroup_or_below_somebody_who_was_stays_a_member(history: list[tuple[int, int]]) -> None:
    """What somebody made before they entered may count as ours, if the entry is heard of first; and what the parent of
    somebody who entered makes, if that is like them and the parent has become something else meanwhile.
    """
    world = World(PLACE)
    for act, number in history:
        happen(world, act, number)
        if act == MOVE:
            world.kernel.tell(world.membership)
            world.look()
        assert world.members <= world.kin
    world.kernel.tell(world.membership)
    world.look()
    assert world.truth <= world.members <= world.kin
    members = world.workload.members.values()
    where = {each.process.pid: world.kernel.table[each.process.pid].cgroup for each in members}
    assert {each.process.pid for each in members if each.outside} == {pid for pid in where if where[pid] != GROUP}


@settings(max_examples=150, deadline=None)
@given(histories(FORK, SIDEWAYS, SIDEWAYS, EXEC, EXIT, SESSION))
def test_a_process_made_under_another_parent_is_ours_by_its_session(history: list[tuple[int, int]]) -> None:
    """CLONE_PARENT, by whoever has lost their parent; told each time before anybody else gets that pid."""
    world = World()
    for act, number in history:
        happen(world, act, number)
        world.kernel.tell(world.membership)
        assert world.members == world.truth


def test_where_the_parent_runs_the_same_a_process_made_sideways_is_told_by_its_session() -> None:
    world = World()
    world.kernel.table[INIT].image = 1
    ours, theirs = world.who(0), world.kernel.fork(world.kernel.table[INIT])
    made = world.kernel.fork(ours, sideways=True)
    world.kernel.tell(world.membership)
    assert made is not None
    assert theirs is not None
    assert world.members == {ours.start, made.start}


def test_the_number_of_a_session_that_is_over_says_nothing_of_who_begins_one_by_it_later() -> None:
    world = World()
    world.kernel.table[INIT].image = 1
    leader = world.kernel.fork(world.who(0))
    assert leader is not None
    world.kernel.begin_session(leader)
    world.kernel.exit(leader)
    theirs = world.kernel.fork(world.kernel.table[INIT])
    assert theirs is not None
    assert theirs.pid == leader.pid
    world.kernel.begin_session(theirs)
    world.kernel.fork(theirs, sideways=True)
    world.kernel.tell(world.membership)
    assert world.members == world.truth


def test_what_a_process_made_sideways_makes_before_it_ends_is_ours_though_nobody_saw_its_maker() -> None:
    world = World()
    first = world.who(0)
    maker = world.kernel.fork(first, sideways=True)
    assert maker is not None
    left = world.kernel.fork(maker)
    world.kernel.exit(maker)
    world.kernel.tell(world.membership)
    assert left is not None
    assert left.start in world.members


def test_an_orphan_that_makes_a_process_under_its_new_parent_and_ends_at_once_has_not_hidden_it() -> None:
    world = World()
    middle = world.kernel.fork(world.who(0))
    assert middle is not None
    orphan = world.kernel.fork(middle)
    world.kernel.exit(middle)
    assert orphan is not None
    escaped = world.kernel.fork(orphan, sideways=True)
    assert escaped is not None
    world.kernel.exit(orphan)
    world.kernel.tell(world.membership)
    assert escaped.start in world.members


def test_a_child_of_init_that_is_like_init_is_nobody_of_ours() -> None:
    world = World()
    world.kernel.fork(world.kernel.table[INIT])
    world.kernel.tell(world.membership)
    assert world.members == world.truth


@settings(max_examples=100, deadline=None)
@given(histories(FORK, SIDEWAYS, EXEC, EXIT, SESSION, MOVE, TELL))
def test_nothing_stays_held_once_it_has_ended_or_the_workload_is_let_go(history: list[tuple[int, int]]) -> None:
    world = World(PLACE)
    for act, number in history:
        happen(world, act, number)
    world.kernel.tell(world.membership)
    world.look()
    members = {id(member.process) for member in world.workload.members.values()}
    assert {id(each) for each in world.kernel.held if not each.closed} == members
    world.membership.end(world.workload)
    assert all(each.closed for each in world.kernel.held)


@settings(max_examples=100, deadline=None)
@given(histories(FORK, EXEC, EXIT, TELL))
def test_after_lost_events_the_whole_table_gives_back_who_still_has_a_parent_that_is_ours(
    history: list[tuple[int, int]],
) -> None:
    world = World()
    for act, number in history:
        happen(world, act, number)
    world.kernel.events.clear()
    table = {pid: Stat("S", each.parent, each.session, each.start) for pid, each in world.kernel.table.items()}
    world.membership.look_at_all(table)
    assert world.members <= world.truth
    below = {each.start for each in world.kernel.table.values() if each.ours and each.parent in world.workload.members}
    assert below <= world.members


def test_whose_a_process_is_holds_as_the_kernel_says_it_whoever_its_parent_is() -> None:
    world = World()
    first, stranger = world.who(0), world.who(1)
    child = world.kernel.fork(stranger)
    assert child is not None
    member = world.membership.told(world.workload, child.pid, stranger.pid, world.kernel.clock)
    assert world.membership.told(world.workload, child.pid) is member, "it executes something"
    assert world.members == {first.start, child.start}


def test_the_end_of_a_process_is_not_that_of_another_one_with_its_pid() -> None:
    world = World()
    first = world.who(0)
    child = world.kernel.fork(first)
    assert child is not None
    before = world.membership.told(world.workload, child.pid, first.pid, world.kernel.clock)
    world.kernel.exit(child)
    again = world.kernel.fork(first)
    assert again is not None
    assert again.pid == child.pid
    after = world.membership.told(world.workload, again.pid, first.pid, world.kernel.clock)
    assert before.process.closed
    assert not world.membership.has_ended(before)
    assert world.members == {first.start, again.start}
    assert world.membership.has_ended(after)
    assert world.membership.of(again.pid) is None


def test_a_successor_is_not_taken_for_the_process_that_the_kernel_tells_of() -> None:
    world = World()
    child = world.kernel.fork(world.who(0))
    assert child is not None
    at = world.kernel.clock
    world.kernel.exit(child)
    assert world.kernel.fork(world.who(1)) is not None
    assert world.membership.told(world.workload, child.pid, 0, at).process.stat() is None


def test_whom_we_find_is_told_to_whoever_marks_and_whom_the_kernel_names_is_not() -> None:
    world = World()
    found: list[Member[Seen]] = []
    world.membership = Membership(world.kernel.hold, found.append)
    world.workload = Workload()
    first = world.membership.begin(world.workload, world.kernel.hold(world.who(0).pid, 1))
    child = world.kernel.fork(world.who(0))
    assert child is not None
    world.membership.told(world.workload, child.pid, world.who(0).pid, world.kernel.clock)
    assert found == [first]


HOME = 7


def contained() -> tuple[World, Running]:
    """A workload in a container, and who runs containers: its children are none of the workload's."""
    world = World()
    first, engine = world.who(0), world.who(1)
    first.home = HOME
    world.membership.end(world.workload)
    world.workload = Workload(None, (0, HOME))
    assert world.membership.begin(world.workload, world.kernel.hold(first.pid, 1)) is not None
    return world, engine


def test_who_executes_in_a_container_belongs_to_it_whoever_made_them_and_so_do_their_children() -> None:
    world, engine = contained()
    came = world.kernel.fork(engine)
    assert came is not None
    came.home = HOME
    world.kernel.execute(came, 4)
    child = world.kernel.fork(came)
    assert child is not None
    world.kernel.tell(world.membership)
    assert world.members == {world.who(0).start, came.start, child.start}


def test_who_enters_a_container_and_executes_nothing_is_found_by_looking_and_nobody_else_is() -> None:
    world, engine = contained()
    came, outside = world.kernel.fork(engine), world.kernel.fork(engine)
    assert came is not None
    assert outside is not None
    came.home = HOME
    world.kernel.tell(world.membership)
    entered = world.membership.look_around(world.kernel.table)
    assert [member.process.pid for member in entered] == [came.pid]
    assert world.members == {world.who(0).start, came.start}
    assert world.membership.look_around(world.kernel.table) == []


def test_without_events_who_opens_something_to_execute_it_in_a_container_belongs_to_it() -> None:
    world, engine = contained()
    came = world.kernel.fork(engine)
    assert came is not None
    assert world.membership.descends(came.pid) is None
    came.home = HOME
    found = world.membership.descends(came.pid)
    assert found is not None
    assert found.workload is world.workload


def test_once_a_workload_is_let_go_its_container_is_nobodys() -> None:
    world, engine = contained()
    world.membership.end(world.workload)
    assert not world.membership.has_homes
    engine.home = HOME
    assert world.membership.look_around(world.kernel.table) == []
    assert all(each.closed for each in world.kernel.held)
