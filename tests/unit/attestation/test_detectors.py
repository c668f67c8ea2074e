"""Alerts of somebody else's detectors: read strictly, taken over within bounds, and told apart by whom they name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.detectors import relay
from attestation.detectors.alerts import (
    MOST_NAME,
    MOST_RULE,
    MOST_TAGS,
    MOST_TEXT,
    About,
    Alert,
    Concern,
    Detector,
    Priority,
    Sign,
    Whereabouts,
    concern,
)
from attestation.detectors.reading import MOST_BYTES, read
from attestation.detectors.relay import Dropped, Relays, Taken, Turned
from attestation.errors import InvalidInput
from attestation.plain import build, plain
from tests.unit.attestation.alerting import (
    AT_MS,
    CONTAINER,
    FALCO_DROPS,
    FALCO_METRICS,
    FALCO_WITHOUT_VALUES,
    POD_UID,
    TETRAGON_EXEC,
    falco,
    line,
    tetragon,
)


def raised(document: Any) -> Alert:
    heard = read(line(document))
    assert isinstance(heard, Alert)
    return heard


def test_falcos_alert_names_rule_priority_tags_and_whom_it_is_about() -> None:
    assert raised(falco()) == Alert(
        Detector.FALCO,
        "Terminal shell in container",
        "22:03:57.700326678: Warning Terminal shell in container (user=root)",
        AT_MS,
        About(CONTAINER[:12], POD_UID, "default", "xwing", "node-1", 52699),
        Priority.WARNING,
        ("container", "mitre_execution"),
        "/usr/bin/curl",
    )


def test_falcosidekicks_form_is_the_same_and_its_shorter_message_goes_before_the_output() -> None:
    posted = falco(uuid="8cff1c16-39fc-4ad1-9a6b-000000000000", message="A shell was spawned", custom="field")
    assert raised(posted) == replace(raised(falco()), text="A shell was spawned")


def test_what_falco_has_no_value_for_is_empty() -> None:
    found = raised(FALCO_WITHOUT_VALUES)
    assert found.about == About(container="8cff1c1639fc")
    assert (found.priority, found.tags, found.executable) == (Priority.NOTICE, (), "")


@pytest.mark.parametrize(
    ("fields", "about"),
    [
        ({"container.id": "host"}, {"container": "", "host": True}),
        ({"container.id": ""}, {"container": ""}),
        ({"container.id": "8cff1c1639fc; rm -rf /"}, {"container": ""}),
        ({"container.full_id": CONTAINER}, {"container": CONTAINER}),
        ({"proc.pid": "52699"}, {}),
        ({"proc.pid": None}, {"pid": 0}),
        ({"proc.pid": 1 << 40}, {"pid": 0}),
        ({"k8s.pod.uid": POD_UID.replace("-", "_")}, {}),
        ({"k8s.pod.uid": "xwing"}, {"pod_uid": ""}),
        ({"k8s.pod.name": "x\x1b[2Jwing"}, {"pod": ""}),
        ({"k8s.pod.name": "x" * 300}, {"pod": ""}),
    ],
)
def test_falco_names_nobody_by_what_cannot_be_a_name(fields: dict[str, Any], about: dict[str, Any]) -> None:
    assert raised(falco(**fields)).about == replace(raised(falco()).about, **about)


def test_what_falco_says_of_itself_is_no_alert() -> None:
    assert read(line(FALCO_METRICS)) == Sign(Detector.FALCO, 1_748_557_198_960, dropped=42)
    assert read(line(FALCO_DROPS)) == Sign(Detector.FALCO, 1_677_812_583_000, lost="syscall event drop")


def test_a_tracing_policys_event_names_the_policy_its_message_who_did_it_and_what_was_done() -> None:
    about = About(CONTAINER, "", "default", "xwing", "node-1", 52699)
    text = "A sensitive file was read, by /usr/bin/curl https://ebpf.io/applications/#tetragon; sigkill"
    tags = ("observability.filesystem",)
    found = Alert(Detector.TETRAGON, "sensitive-files", text, AT_MS, about, None, tags, "/usr/bin/curl")
    for kind in ("process_kprobe", "process_tracepoint", "process_uprobe", "process_lsm", "process_usdt"):
        assert raised(tetragon(kind)) == found


def test_without_a_message_what_was_hooked_is_told_and_without_a_policy_the_kind_of_event() -> None:
    bare = tetragon(message="", policy_name="", action="KPROBE_ACTION_POST", process={"pid": 7})
    found = raised(bare)
    assert (found.rule, found.text) == ("process_kprobe", "security_file_permission")
    assert raised(
        tetragon("process_tracepoint", message="", function_name="", event="sys_enter_mount")
    ).text.startswith("sys_enter_mount, by ")


def test_the_short_id_of_a_container_and_the_uid_of_a_pod_are_taken_where_tetragon_has_them() -> None:
    process = {"pid": 7, "docker": CONTAINER[:31], "pod": {"uid": POD_UID, "name": "xwing", "namespace": "default"}}
    assert raised(tetragon(process=process)).about == About(CONTAINER[:31], POD_UID, "default", "xwing", "node-1", 7)


@pytest.mark.parametrize("kind", ["process_exec", "process_exit", "process_loader"])
def test_what_tetragon_exports_of_every_process_is_no_alert_unless_a_policy_asked_for_it(kind: str) -> None:
    event = TETRAGON_EXEC["process_exec"]
    document = {**{name: each for name, each in TETRAGON_EXEC.items() if name != "process_exec"}, kind: event}
    assert read(line(document)) == Sign(Detector.TETRAGON, AT_MS)
    document[kind] = {**event, "policy_name": "loaders"}
    assert raised(document).rule == "loaders"


@pytest.mark.parametrize(
    ("event", "lost"),
    [
        ({"rate_limit_info": {"number_of_dropped_process_events": "7"}}, "events were dropped for their rate"),
        ({"process_throttle": {"type": "THROTTLE_START", "cgroup": "web.scope"}}, "events of web.scope are throttled"),
        ({"process_throttle": {"type": "THROTTLE_STOP", "cgroup": "web.scope"}}, ""),
    ],
)
def test_that_tetragon_leaves_events_out_is_told_as_a_loss(event: dict[str, Any], lost: str) -> None:
    assert read(line({**event, "time": TETRAGON_EXEC["time"]})) == Sign(Detector.TETRAGON, AT_MS, lost)


@pytest.mark.parametrize(
    "spoilt",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe{}",
        b'{"rule":"r","priority":"Notice"}',
        line(falco(priority="Grave")),
        line(falco(priority=3)),
        line(falco(rule="")),
        line(falco(rule=["r"])),
        line(falco(time="yesterday")),
        line(falco(time="2023-13-06T22:03:57Z")),
        line(falco(tags="container")),
        line(falco(tags=[1])),
        line(falco(output_fields=[])),
        line(falco(**{"proc.pid": -1})),
        line(falco(**{"proc.pid": 1.5})),
        line(falco(**{"proc.pid": True})),
        line(falco(**{"container.id": {}})),
        line(falco())[:-1],
        line(falco()) * 2,
        line(tetragon())[:200],
        line({**tetragon(), "process_exec": {}}),
        line({"process_kprobe": [], "time": TETRAGON_EXEC["time"]}),
        line({"process_kprobe": {}}),
        b'{"rule":"r","rule":"q","priority":"Notice","time":"2023-10-06T22:03:57Z"}',
        line(falco()).replace(b"52699", b"9" * 5000),
        line(falco()).replace(b"52699", b"NaN"),
        b'{"rule":' + b"[" * 50_000,
        line(falco(output="x" * MOST_BYTES)),
    ],
)
def test_what_is_no_alert_of_theirs_is_refused(spoilt: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(spoilt)


def test_an_alert_is_taken_over_within_bounds_and_fit_to_be_shown() -> None:
    hostile = "\x1b]0;x\x07\n\u202e\ud800" * 60
    for document in (
        falco(rule=hostile, output=hostile, tags=[hostile] * 20, **{"proc.exepath": hostile}),
        tetragon(policy_name=hostile, message=hostile, tags=[hostile] * 20, action=hostile),
    ):
        found = raised(document)
        assert (len(found.rule), len(found.text)) <= (MOST_RULE, MOST_TEXT)
        assert len(found.tags) == MOST_TAGS
        assert all(len(each) <= MOST_NAME for each in found.tags)
        assert all(each.isprintable() and each.isascii() for each in (found.told, *found.tags, found.executable))
        assert build(Alert, plain(found)) == found


# Whom it is about.

OURS = Whereabouts(CONTAINER, POD_UID, "default", "xwing", "node-1", pids=True)
OTHER = "0" * 64


@pytest.mark.parametrize(
    ("about", "where", "found"),
    [
        (About(container=CONTAINER[:12]), OURS, Concern.OURS),
        (About(container=CONTAINER[:31]), OURS, Concern.OURS),
        (About(container=CONTAINER[:11]), OURS, Concern.OTHERS),
        (About(container=OTHER[:12], pod_uid=POD_UID, pid=7), OURS, Concern.OTHERS),
        (About(pod_uid=POD_UID), OURS, Concern.OURS),
        (About(pod_uid="another", namespace="default", pod="xwing"), OURS, Concern.OTHERS),
        (About(namespace="default", pod="xwing"), OURS, Concern.OURS),
        (About(namespace="other", pod="xwing"), OURS, Concern.OTHERS),
        (About(pod="xwing"), Whereabouts(pod="xwing"), Concern.NOBODYS),
        (About(host=True, pid=7), OURS, Concern.OTHERS),
        (About(host=True, pid=7), Whereabouts(pids=True), Concern.BY_PID),
        (About(container=OTHER, pid=7), Whereabouts(pids=True), Concern.BY_PID),
        (About(container=OTHER), Whereabouts(pids=True), Concern.OTHERS),
        (About(container=OTHER), Whereabouts(), Concern.NOBODYS),
        (About(pid=7), Whereabouts(), Concern.NOBODYS),
        (About(), OURS, Concern.NOBODYS),
    ],
)
def test_it_is_ours_by_the_most_certain_of_what_both_sides_know(
    about: About, where: Whereabouts, found: Concern
) -> None:
    assert concern(about, where, here=True) is found


@pytest.mark.parametrize(
    ("node", "found"), [("node-1", Concern.BY_PID), ("node-2", Concern.OTHERS), ("", Concern.OTHERS)]
)
def test_a_pid_says_nothing_about_another_machine(node: str, found: Concern) -> None:
    where = Whereabouts(node="node-1", pids=True)
    assert concern(About(node=node, pid=7), where, here=False) is found
    assert concern(About(node=node, pid=7), where, here=True) is Concern.BY_PID
    assert concern(About(node=node, pid=7), replace(where, node=""), here=False) is Concern.OTHERS


NAMES = st.sampled_from(["", "one", "two"])
CONTAINERS = st.sampled_from(["", CONTAINER, CONTAINER[:12], OTHER, OTHER[:12]])


@given(
    st.builds(About, CONTAINERS, NAMES, NAMES, NAMES, NAMES, st.sampled_from([0, 7]), st.booleans()),
    st.builds(Whereabouts, CONTAINERS, NAMES, NAMES, NAMES, NAMES, st.booleans()),
    st.booleans(),
)
def test_an_alert_that_names_another_container_or_pod_is_never_ours(
    about: About, where: Whereabouts, here: bool
) -> None:
    found = concern(about, where, here=here)
    if about.container and where.container and about.container[:12] != where.container[:12]:
        assert found is Concern.OTHERS
    if not (about.container and where.container) and about.pod_uid and where.pod_uid:
        assert (found is Concern.OURS) == (about.pod_uid == where.pod_uid)
    if found is Concern.BY_PID:
        assert about.pid and where.pids
        assert here or about.node == where.node


@pytest.mark.parametrize("word", [Relays(Detector.TETRAGON), Dropped(3), Taken(7), Turned(4, "why")])
def test_what_relay_and_sidecar_say_to_each_other_is_a_line_that_no_detector_writes(word: relay.Word) -> None:
    said = relay.encode(word)
    assert said.endswith(b"\n")
    assert relay.decode(said[:-1]) == word
    assert relay.decode(line(falco())) is None


@pytest.mark.parametrize(
    "spoilt",
    [b'{"proofbeat":', b'{"proofbeat":{}}', b'{"proofbeat":{"taken":{}}}', b'{"proofbeat":{"sudo":{"lines":1}}}'],
)
def test_a_word_of_theirs_that_is_none_is_refused(spoilt: bytes) -> None:
    with pytest.raises(InvalidInput):
        relay.decode(spoilt)
