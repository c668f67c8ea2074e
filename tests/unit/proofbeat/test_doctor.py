"""The doctor's judgement, over facts that are made up: what is lacking, what that costs, and what mends it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.errors import InvalidInput
from proofbeat.doctor.findings import Check, Facts, Health, checks, mend_all
from proofbeat.doctor.run import document, lines, run

WHOLE = Facts(
    release="6.8.0",
    machine="x86_64",
    python="3.11.7",
    user=0,
    max_queued_events=16_384,
    max_user_watches=192_000,
    max_user_instances=128,
    descriptors=20_000,
    yama=1,
    envoy="1.40.0",
    free_bytes=1 << 30,
)
DENIED = "Operation not permitted"
ORDINARY = replace(
    WHOLE,
    user=1000,
    fanotify=DENIED,
    programs=DENIED,
    connector=DENIED,
    sock_destroy=DENIED,
    ptrace=DENIED,
    read_search=DENIED,
    fence=DENIED,
)


def check(name: str, facts: Facts) -> Check:
    return next(each for each in checks(facts) if each.name == name)


def test_where_nothing_is_lacking_nothing_costs_and_nothing_needs_mending() -> None:
    found = checks(WHOLE)
    assert {each.health for each in found} == {Health.OK}
    assert [each.name for each in found if each.costs or each.mend] == []
    assert mend_all(found, WHOLE) == ()
    assert lines(WHOLE, found)[-1] == "Nothing is lacking."


def test_an_ordinary_user_works_in_a_weaker_way_and_one_line_gives_all_that_is_missing() -> None:
    found = checks(ORDINARY)
    assert Health.BROKEN not in {each.health for each in found}
    limited = [each for each in found if each.health is Health.LIMITED]
    assert [each.name for each in limited] == [
        "fanotify",
        "kernel-programs",
        "process-connector",
        "sock-destroy",
        "ptrace-access",
        "read-everything",
        "egress-fence",
    ]
    assert all(each.costs and each.mend for each in limited)
    once, systemd, kubernetes = mend_all(found, ORDINARY)
    assert "--ambient-caps +dac_read_search,+net_admin,+sys_admin,+sys_ptrace" in once
    assert systemd.endswith("CAP_DAC_READ_SEARCH CAP_NET_ADMIN CAP_SYS_ADMIN CAP_SYS_PTRACE")
    assert "add: [DAC_READ_SEARCH, NET_ADMIN, SYS_ADMIN, SYS_PTRACE]" in kubernetes


def test_where_only_the_kernels_programs_are_lacking_their_own_two_capabilities_are_asked_for() -> None:
    alone = replace(WHOLE, programs=DENIED)
    found = checks(alone)
    assert "CAP_BPF and CAP_PERFMON" in check("kernel-programs", alone).mend[0]
    assert mend_all(found, alone)[1].endswith("AmbientCapabilities=CAP_BPF CAP_PERFMON")


@pytest.mark.parametrize(
    ("changed", "name", "health"),
    [
        ({"pidfd": "Function not implemented"}, "pidfd", Health.BROKEN),
        ({"openat2": "Function not implemented"}, "openat2", Health.BROKEN),
        ({"timers": "Invalid argument"}, "timers", Health.BROKEN),
        ({"non_dumpable": "no"}, "non-dumpable", Health.BROKEN),
        ({"libyaml": "built without"}, "libyaml", Health.BROKEN),
        ({"random": "Resource temporarily unavailable"}, "random", Health.BROKEN),
        ({"free_bytes": 1 << 20}, "disk", Health.BROKEN),
        ({"inotify": "Too many open files"}, "inotify", Health.LIMITED),
        ({"peer_pidfd": "Protocol not available"}, "peer-pidfd", Health.LIMITED),
        ({"max_queued_events": 128}, "queued-events", Health.LIMITED),
        ({"max_user_watches": 8192}, "inotify-watches", Health.LIMITED),
        ({"max_user_instances": None}, "inotify-instances", Health.LIMITED),
        ({"descriptors": 256}, "descriptors", Health.LIMITED),
        ({"descriptors": None}, "descriptors", Health.OK),
        ({"yama": 0}, "yama", Health.LIMITED),
        ({"yama": None}, "yama", Health.LIMITED),
        ({"initial_pids": False}, "pid-namespace", Health.LIMITED),
        ({"cgroup": 0}, "cgroup", Health.LIMITED),
        ({"cgroup_writable": False}, "cgroup", Health.LIMITED),
        ({"envoy": ""}, "envoy", Health.LIMITED),
        ({"user": 1337, "bounding": "800a04fb"}, "effective-capabilities", Health.LIMITED),
        ({"user": 1337, "bounding": "800a04fb", "capabilities": "80000"}, "effective-capabilities", Health.OK),
        ({"user": 0, "bounding": "800a04fb"}, "effective-capabilities", Health.OK),
        ({"user": 1000, "bounding": "1ffffffffff"}, "effective-capabilities", Health.OK),
    ],
)
def test_each_thing_that_is_lacking_is_one_check_with_its_price_and_its_mend(
    changed: dict[str, Any], name: str, health: Health
) -> None:
    facts = replace(WHOLE, **changed)
    found = check(name, facts)
    assert found.health is health
    assert bool(found.costs and found.mend) is (health is not Health.OK)
    assert {each.name for each in checks(facts) if each.health is not Health.OK} <= {name}


def test_a_capability_that_is_added_for_another_user_than_root_is_named_with_the_line_that_makes_it_effective() -> None:
    found = check("effective-capabilities", replace(WHOLE, user=1337, bounding="80000"))
    assert found.found == "CAP_SYS_PTRACE given, and not effective for user 1337"
    assert "runAsUser: 0, capabilities: {drop: [ALL], add: [SYS_PTRACE]}" in found.mend[0]


def test_the_object_says_whether_it_works_and_whether_all_is_there() -> None:
    told = document(ORDINARY, checks(ORDINARY))
    assert (told["works"], told["complete"]) == (True, False)
    assert set(told) == {
        *("kernel", "machine", "python", "user", "capabilities"),
        *("mechanisms", "works", "complete", "checks", "mend"),
    }


def test_anywhere_but_on_linux_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InvalidInput, match="Run it on Linux"):
        asyncio.run(run(None, as_json=False))


def test_a_file_that_is_no_settings_is_told_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        asyncio.run(run(tmp_path / "absent.yaml", as_json=False))
