"""Who can reach whom: the judgement without a kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attestation.coverage import Guarantee, Isolation
from measurer.isolation import Suspect, Ward, judge
from measurer.processes.proc import Rights

HERE = ("pid:[1]", "user:[2]")
ROOT = Rights((0,) * 4, (0,) * 4, f"{(1 << 41) - 1:016x}", False, 0, 0, HERE, (1 << 41) - 1)
USER = Rights((1000,) * 4, (1000,) * 4, "0" * 16, True, 2, 0, ("pid:[9]", "user:[2]"), 0)
PROXY = replace(USER, uids=(1337,) * 4)
US, ENVOY = Ward(ROOT, dumpable=False), Ward(PROXY, dumpable=False)
CAP_SYS_PTRACE, CAP_SETUID, CAP_NET_ADMIN = 1 << 19, 1 << 7, 1 << 12


def judged(*workload: Suspect, us: Ward = US, envoy: Ward | None = ENVOY, yama: bool = False) -> Isolation:
    return judge([us, us], envoy, list(workload), yama)


def test_another_user_without_capabilities_in_another_pid_namespace_reaches_nobody() -> None:
    assert judged(Suspect(USER)).guarantees == frozenset(Guarantee)


def test_what_could_not_be_looked_at_guarantees_nothing() -> None:
    assert judge([US, None], ENVOY, [Suspect(USER)], yama=True).guarantees == frozenset()
    assert judged().guarantees == frozenset()


def test_without_an_envoy_nothing_is_said_of_one() -> None:
    held = judged(Suspect(USER), envoy=None).guarantees
    assert held == {each for each in Guarantee if not each.startswith("envoy")}


def test_a_shared_user_may_attach_to_what_is_dumpable_unless_yama_forbids_it() -> None:
    ours = replace(USER, namespaces=HERE)
    exposed, closed = Ward(ours, dumpable=True), Ward(ours, dumpable=False)
    assert judged(Suspect(USER), us=exposed).workload_can_trace
    assert not judged(Suspect(USER), us=exposed, yama=True).workload_can_trace
    assert not judged(Suspect(USER), us=closed).workload_can_trace
    found = judged(Suspect(USER), us=closed)
    assert (found.distinct_user, found.workload_can_become_us, found.non_dumpable) == (False, True, True)


def test_one_of_us_that_is_dumpable_is_enough() -> None:
    assert not judge([US, Ward(ROOT, dumpable=True)], ENVOY, [Suspect(USER)], yama=True).non_dumpable


def test_the_capability_to_trace_needs_no_user_and_no_dumpable_target() -> None:
    capable = Suspect(replace(USER, attainable=CAP_SYS_PTRACE))
    found = judged(Suspect(USER), capable, yama=True)
    assert found.workload_can_trace
    assert found.workload_can_trace_envoy
    assert found.distinct_user


def test_who_may_take_any_user_may_become_us_and_attach_to_what_is_dumpable() -> None:
    capable = Suspect(replace(USER, attainable=CAP_SETUID))
    found = judged(capable, envoy=Ward(PROXY, dumpable=True))
    assert found.workload_can_become_us
    assert found.workload_can_trace_envoy
    assert not found.workload_can_trace
    assert not judged(Suspect(replace(USER, attainable=CAP_NET_ADMIN))).workload_can_become_us


@pytest.mark.parametrize(("below", "counts"), [(frozenset(), True), (frozenset({"user:[2]"}), False)])
def test_capabilities_count_unless_they_are_proven_to_lie_below_our_user_namespace(
    below: frozenset[str], counts: bool
) -> None:
    capable = replace(USER, attainable=CAP_SYS_PTRACE, namespaces=("pid:[9]", "user:[77]"))
    assert judged(Suspect(capable, below)).workload_can_trace is counts


def test_a_user_namespace_that_maps_our_user_can_become_us() -> None:
    inside = Suspect(replace(USER, namespaces=("pid:[9]", "user:[77]")), frozenset({"user:[2]"}), ((0, 1),))
    assert judged(inside).workload_can_become_us
    assert not judged(replace(inside, users=((100_000, 65_536),))).workload_can_become_us


def test_an_unreadable_pid_namespace_counts_as_shared() -> None:
    assert judged(Suspect(replace(USER, namespaces=("pid:unreadable", "user:[2]")))).shared_pid_namespace
    assert not judged(Suspect(USER)).shared_pid_namespace
