"""What is written of what was learned: policy, reference values, seccomp profile."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from attestation.calls import TABLES
from attestation.errors import InvalidInput
from policies.author.learning import always
from policies.author.learning.always import ALWAYS, LOADER, RUNTIME
from policies.author.learning.learned import Amount, Learned, read
from policies.author.learning.outcome import HEADROOM, origins, references, rules
from policies.author.learning.remarks import remarks
from policies.author.learning.seccomp import asking, filtered, operators, profile
from policies.model import dialect
from policies.model.policy import PolicySpec
from policies.model.references import ReferenceValues
from policies.model.writing import reference_values
from tests.unit.policies.learning.samples import CONTENTS, learned, origin, reference, run

REACHING = """
bpf chroot clone clone3 connect delete_module execve execveat finit_module fork init_module io_uring_setup kill mmap
mount mprotect open openat openat2 personality pivot_root process_vm_writev ptrace rt_sigqueueinfo sendto setns setuid
socket tgkill tkill unshare userfaultfd vfork write
"""
"""What an intruder needs to reach anything: another file, program, process, address, or code of his own."""
INTRUDERS = """
bpf chroot connect delete_module finit_module init_module io_uring_setup kexec_load mount perf_event_open pivot_root
process_vm_writev ptrace setns socket unshare userfaultfd
"""
"""The first steps of one."""


def some(**said: Any) -> Learned:
    return Learned.model_validate({"runs": (run(),), **said})


CALLED = some(calls={"serving": {"accept4": origin(), "io_uring:openat": origin()}, "ending": {"unlink": origin()}})


# --- what a run misses ---


def test_what_is_always_allowed_reaches_nothing_beyond_the_process() -> None:
    assert not {name for each in ALWAYS for name in each.calls} & set(REACHING.split())


def test_what_a_runtime_or_a_loader_calls_is_in_no_baseline_and_holds_nothing_of_an_intruders_first_steps() -> None:
    assert not (RUNTIME.calls | LOADER.calls) & set(INTRUDERS.split())
    assert set(references("web", CALLED).spec.syscalls) == {"serving", "ending", *(each.name for each in ALWAYS)}


@pytest.mark.parametrize("calls", [*ALWAYS, RUNTIME, LOADER], ids=lambda each: each.name)
def test_every_name_of_a_set_is_a_call_and_every_set_says_why(calls: always.CallSet) -> None:
    assert always.known(calls.calls, TABLES) == calls.calls
    assert calls.why.endswith(".")


def test_a_machine_is_given_the_calls_that_it_has() -> None:
    arm = some(runs=(run(machine="aarch64"),), calls={"serving": {"read": origin()}})
    assert "time" not in references("web", arm).spec.calls
    assert "time" in references("web", CALLED).spec.calls


# --- policy and reference values ---


@settings(max_examples=40)
@given(learned())
def test_whatever_was_learned_is_a_policy_and_reference_values_that_can_be_written_and_read(found: Learned) -> None:
    PolicySpec.model_validate(rules(found))
    values = references("web", found)
    ((value, node),) = dialect.parse(reference_values(values, origins(found)), "x")
    assert dialect.validate(value, node, ReferenceValues, "x") == values


def test_where_calls_and_memory_were_looked_at_they_are_asked_for_and_else_not() -> None:
    assert rules(some()) == {}
    assert rules(CALLED) == {"layers": {"syscalls": {}}, "syscalls": {"watching": "strict"}}
    mapped = rules(some(mapped={"/lib/libc.so": {CONTENTS[0]: origin()}}))
    assert mapped == {"layers": {"memory": {}}, "memory": {"jit": []}}


def test_a_compiler_may_make_several_times_as_much_code_as_it_was_seen_to() -> None:
    had = {"/usr/bin/node": Amount(most=1 << 23, writable=True, origin=origin())}
    spec = PolicySpec.model_validate(rules(some(code=had)))
    (allowed,) = spec.memory.jit
    assert (allowed.most, allowed.writable, allowed.memfd) == (HEADROOM << 23, True, False)


def test_scripts_that_are_measured_as_files_are_not_stated_twice() -> None:
    begun = {"/srv/a": {CONTENTS[0]: origin()}, "/opt/job": {CONTENTS[1]: origin()}}
    found = some(include=("/srv",), files={"/srv/a": reference()}, begun=begun)
    assert references("web", found).spec.executables == {"/opt/job": (CONTENTS[1],)}


def test_each_entry_says_where_it_came_from_and_a_path_ends_no_comment() -> None:
    executables = {"/bin/probe": {CONTENTS[0]: origin(0, 3.5, "/bin/\nsh")}}
    found = some(executables=executables, calls={"startup": {"read": origin(0, 0.25)}})
    text = reference_values(references("web", found), origins(found))
    assert re.search(r'"/bin/probe": .*  # /bin/\\nsh, 3.50 s, 2026-01-01T00:00:00Z-a$', text, re.MULTILINE)
    assert re.search(r'- "read"  # /bin/app, 0.25 s, 2026-01-01T00:00:00Z-a$', text, re.MULTILINE)
    assert "# The time is read without a call" in text


# --- the profile ---


def test_a_profile_refuses_what_nobody_called_and_names_each_call_once() -> None:
    made = profile(CALLED)
    assert made["defaultAction"] == "SCMP_ACT_ERRNO"
    names = [name for each in made["syscalls"] for name in each["names"]]
    assert len(names) == len(set(names))
    assert {"accept4", "unlink", "execve", "rt_sigreturn"} <= set(names)
    assert not {"io_uring:openat", "mprotect", "mount"} & set(names)
    assert {each["action"] for each in made["syscalls"]} == {"SCMP_ACT_ALLOW"}


def test_a_profile_that_asks_asks_for_every_other_call_that_has_a_name() -> None:
    made = asking(CALLED, "/run/proofbeat/seccomp.sock")
    allowed = {name for each in profile(CALLED)["syscalls"] for name in each["names"]}
    groups = {each["action"]: set[str]() for each in made["syscalls"]}
    for each in made["syscalls"]:
        groups[each["action"]] |= set(each["names"])
    assert groups == {"SCMP_ACT_ALLOW": allowed, "SCMP_ACT_NOTIFY": set(TABLES["x86_64"]) - allowed}
    assert "write" in allowed, "a runtime that has to write before anybody answers would wait for ever"
    assert (made["defaultAction"], made["listenerPath"]) == ("SCMP_ACT_ERRNO", "/run/proofbeat/seccomp.sock")


def test_a_filter_of_our_own_lets_through_what_its_policy_allows_and_nothing_of_a_runtimes() -> None:
    values = references("web", CALLED).spec
    assert {each for each in values.calls if ":" not in each} - {"compat", "x32"} <= filtered(CALLED)
    assert not (filtered(CALLED) - set(values.calls))


def test_what_is_started_under_a_filter_that_asks_needs_nobody_who_looks_at_each_call() -> None:
    assert rules(CALLED, notified=True)["syscalls"] == {"watching": "lean", "notified": "required"}
    assert rules(CALLED)["syscalls"] == {"watching": "strict"}


def test_a_program_whose_start_nobody_saw_is_let_start() -> None:
    unseen = some(runs=(run(running=("/bin/app",)),), calls={"serving": {"read": origin()}})
    names = {name for each in profile(unseen)["syscalls"] for name in each["names"]}
    assert names >= LOADER.calls


@pytest.mark.parametrize(
    ("machine", "calls", "architectures"),
    [
        ("x86_64", ("read",), ["SCMP_ARCH_X86_64"]),
        ("x86_64", ("read", "compat"), ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]),
        ("x86_64", ("x32",), ["SCMP_ARCH_X32", "SCMP_ARCH_X86_64"]),
        ("aarch64", ("read", "compat"), ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ],
)
def test_older_interfaces_are_allowed_where_somebody_called_by_one(
    machine: str, calls: tuple[str, ...], architectures: list[str]
) -> None:
    made = {"serving": {name: origin() for name in calls}}
    assert profile(some(runs=(run(machine=machine),), calls=made))["architectures"] == architectures


def test_the_operators_form_is_the_same_in_its_own_kind() -> None:
    made = yaml.safe_load(yaml.safe_dump(operators("web", profile(CALLED))))
    assert (made["apiVersion"], made["kind"]) == ("security-profiles-operator.x-k8s.io/v1beta1", "SeccompProfile")
    assert made["metadata"] == {"name": "web"}
    assert made["spec"] == json.loads(json.dumps(profile(CALLED)))


# --- what is said ---


def test_what_should_be_known_before_it_is_enforced_is_said() -> None:
    short = run(quiet=3.0, running=("/bin/app",))
    said = " ".join(remarks(some(runs=(short,), calls={"serving": {"compat": origin(), "unknown": origin()}})))
    for word in ("--until-converged", "/bin/app was not seen", "How it ends", "32 bits", "no name"):
        assert word in said
    whole = run(ended=True, executed=("/bin/app",))
    assert remarks(some(runs=(whole,), calls={"serving": {"read": origin()}})) == ()


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"runs": []}', '{"runs": [{"id": "x"}], "more": 1}'])
def test_what_is_no_file_of_ours_is_refused_with_its_place(document: str) -> None:
    with pytest.raises(InvalidInput, match=r"^here: it is nothing that was learned: "):
        read(document, "here")
