"""How a time is asked for, and how the answer is told: to a person, and as one object for programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attestation.errors import InvalidInput
from attestation.facts import Actor
from authority.store.records import Explanation, Happened, Moment, State
from authority.why import Why
from proofbeat.why import document, lines, moment

ADMIN = Path("admin.sock")
AT_MS, AT = 1_700_000_000_000, "2023-11-14T22:13:20.000Z"
RELEASE = "           proofbeat release --admin admin.sock i-1"
EXECUTED = Explanation(
    id="c-1",
    kind="execution-foreign",
    violation_class="tamper",
    text="/tmp/x: it was executed",
    at_ms=AT_MS,
    layer="processes",
    subject="/tmp/x",
    process=Actor(42, "/tmp/x", 41),
    rule="ReferenceValues/web: spec.executables",
    place="web.yaml:7",
    mend="Start a new instance.",
    allow="kind: ReferenceValues\nspec: {}\n",
)
ORDERED = Explanation(id="", kind="order", violation_class="order", text="odd", at_ms=0)
TAMPERED = Why(
    instance="i-1",
    spiffe_id="spiffe://example.org/web",
    registration="web",
    at_ms=AT_MS,
    known=True,
    state="quarantined",
    since_ms=AT_MS,
    open=False,
    answer="execution-foreign: /tmp/x: it was executed",
    cause=EXECUTED,
    others=(ORDERED,),
    repair=("Start a new instance with a join token.", "Or release this one, if you vouch for it."),
    now="quarantined",
    now_since_ms=AT_MS,
    gone=False,
    history_begins_ms=AT_MS,
    history=(Moment(AT_MS, Happened.VIOLATION, State.QUARANTINED, "/tmp/x: it was executed", EXECUTED),),
    lasting=True,
)
FORGOTTEN = replace(
    TAMPERED,
    known=False,
    state="unknown",
    since_ms=0,
    answer="history does not reach so far back",
    cause=None,
    others=(),
    repair=(),
    history_begins_ms=0,
    history=(),
)


def test_a_time_is_so_long_ago_or_a_date() -> None:
    assert moment("-5m", 1000.0) == 700.0
    assert moment("1970-01-01T00:01:00Z", 1000.0) == 60.0
    assert moment("1970-01-01T01:01:00+01:00", 1000.0) == 60.0


@pytest.mark.parametrize("text", ["", "5m", "-5", "yesterday", "-5m ago", "9999999-01-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        moment(text, 1000.0)


def test_a_person_reads_cause_process_file_policy_repair_allowance_and_history_in_this_order() -> None:
    assert lines(TAMPERED, ADMIN) == [
        "i-1  spiffe://example.org/web",
        f"quarantined since {AT}",
        "  why      execution-foreign: /tmp/x: it was executed",
        f"  cause    c-1, at {AT}",
        "  process  pid 42 /tmp/x, child of 41",
        "  file     /tmp/x",
        "  policy   web.yaml:7  ReferenceValues/web: spec.executables",
        "  repair   Start a new instance with a join token.",
        "           Or release this one, if you vouch for it.",
        RELEASE,
        "  allow    if it is meant to be so, add this to the authority's policies:",
        "           kind: ReferenceValues",
        "           spec: {}",
        "  also     odd",
        f"  now      quarantined since {AT}",
        f"  history  {AT}  violation: /tmp/x: it was executed",
    ]


def test_a_person_reads_no_line_about_what_is_not_known() -> None:
    assert lines(replace(FORGOTTEN, gone=True), ADMIN) == [
        "i-1  spiffe://example.org/web",
        "unknown",
        "  why      history does not reach so far back",
        f"  now      quarantined since {AT}, and gone",
    ]


@pytest.mark.parametrize(
    "why",
    [
        replace(TAMPERED, lasting=False),
        replace(TAMPERED, gone=True),
        replace(TAMPERED, repair=()),
        replace(TAMPERED, cause=None),
    ],
    ids=["drift heals by itself", "nobody speaks for who is gone", "nothing opens it", "nothing closed it"],
)
def test_a_release_is_proposed_only_where_it_helps(why: Why) -> None:
    assert RELEASE in lines(TAMPERED, ADMIN)
    assert RELEASE not in lines(why, ADMIN)


def test_a_program_reads_every_key_with_times_in_iso_8601() -> None:
    executed = {
        "id": "c-1",
        "kind": "execution-foreign",
        "class": "tamper",
        "layer": "processes",
        "text": "/tmp/x: it was executed",
        "at": AT,
        "process": {"pid": 42, "executable": "/tmp/x", "parent": 41},
        "file": "/tmp/x",
        "subject": "/tmp/x",
        "policy": {"rule": "ReferenceValues/web: spec.executables", "place": "web.yaml:7"},
        "mend": "Start a new instance.",
        "allow": "kind: ReferenceValues\nspec: {}\n",
    }
    empty = dict.fromkeys(("id", "layer", "subject", "mend", "allow"), "")
    absent = dict.fromkeys(("at", "process", "file"))
    ordered = {**empty, **absent, "kind": "order", "class": "order", "text": "odd", "policy": {"rule": "", "place": ""}}
    assert document(TAMPERED) == {
        "instance": "i-1",
        "spiffe_id": "spiffe://example.org/web",
        "registration": "web",
        "at": AT,
        "state": "quarantined",
        "since": AT,
        "open": False,
        "held": None,
        "answer": "execution-foreign: /tmp/x: it was executed",
        "cause": executed,
        "others": [ordered],
        "repair": ("Start a new instance with a join token.", "Or release this one, if you vouch for it."),
        "now": {"state": "quarantined", "since": AT, "gone": False},
        "calls": None,
        "history_begins": AT,
        "history": [{"at": AT, "event": "violation", "state": "quarantined", "text": "/tmp/x: it was executed"}],
    }


def test_a_program_reads_null_for_a_time_that_is_not_known_or_that_no_calendar_has() -> None:
    told = document(replace(FORGOTTEN, at_ms=10**18))
    assert (told["at"], told["since"], told["history_begins"], told["cause"]) == (None, None, None, None)
