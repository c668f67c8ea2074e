"""Drift that asks before it closes: what the machine makes of an answer, of none, and of everything in between."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.drift import MOST_DRIFTS
from attestation.layers import Layer
from attestation.trust import Tier
from attestation.violation import Violation
from policies.model.policy import Mode, Recovery
from sidecar.freshness import step
from sidecar.states import (
    Answered,
    Appraised,
    Ask,
    Close,
    Command,
    Drop,
    Event,
    Flaps,
    HoldOver,
    Latch,
    Lease,
    MeasurerLost,
    Phase,
    Reattest,
    Released,
    Report,
    Revoked,
    Rules,
    RulesChanged,
    Serve,
    Stalled,
    State,
    Ticked,
    Violated,
    Waived,
    Waiver,
    WorkloadEnded,
    WouldHave,
)
from tests.unit.sidecar.steps import affirmed, after, at, violation

PATIENCE = 0.25
RULES = Rules(Mode.ENFORCE, holds=True, patience=PATIENCE)
OTHER, THIRD = "/srv/app/other.py", "/srv/app/third.py"


def fresh(rules: Rules = RULES) -> State:
    return after(State(rules), (1.0, affirmed(1)))[0]


def asking(rules: Rules = RULES) -> State:
    return after(fresh(rules), (5.0, Violated(violation())))[0]


def answered(state: State, *, held: bool) -> Answered:
    assert state.question is not None
    return Answered(state.question.number, held)


def holding(rules: Rules = RULES) -> State:
    asked = asking(rules)
    return after(asked, (5.1, answered(asked, held=True)))[0]


def marked(sequence: int, *, generation: int, measured: float, end: float = 100.0) -> Appraised:
    """A result of tier warning that the authority marks as held."""
    result = affirmed(sequence, generation=generation, measured=measured, end=end, tier=Tier.WARNING)
    return replace(result, held=True, cause=replace(violation(measured), kind="contraindicated"))


def kinds(commands: list[Command]) -> list[type[Command]]:
    return [type(each) for each in commands]


def test_drift_asks_and_stays_open_until_the_answer_and_says_that_it_does() -> None:
    state, commands = after(fresh(), (5.0, Violated(violation())))
    assert state.open and state.warned and not state.held
    assert kinds(commands) == [Ask]
    assert state.question is not None
    assert [each.subject for each in state.question.drifts] == ["/srv/app/main.py"]


def test_a_yes_keeps_it_open_marked_and_is_reported_and_attested() -> None:
    asked = asking()
    state, commands = after(asked, (5.1, answered(asked, held=True)))
    assert state.open and state.held and state.warned
    assert state.lease == Lease(1, 100.0, 100.0 + 1e9, affirmed=False, held=True)
    assert kinds(commands) == [Reattest, Report]


def test_a_no_closes_as_drift_does() -> None:
    asked = asking()
    state, commands = after(asked, (5.1, answered(asked, held=False)))
    assert state.phase is Phase.QUARANTINED
    assert kinds(commands) == [Close, Reattest, Report]
    assert commands[0] == Close("file-modified: /srv/app/main.py", violation())


@pytest.mark.parametrize("event", [Ticked(), Waived(None), Violated(violation(subject=OTHER))])
def test_no_answer_in_time_closes_whatever_comes_next(event: Event) -> None:
    state, commands = after(asking(), (5.0 + PATIENCE, event))
    assert not state.open and state.question is None
    assert Close in kinds(commands) and Report in kinds(commands)


def test_an_answer_that_comes_too_late_opens_nothing() -> None:
    asked = asking()
    state, commands = after(asked, (5.0 + PATIENCE, answered(asked, held=True)))
    assert not state.open
    assert kinds(commands) == [Close, Reattest, Drop, Report]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.AUDIT])
def test_what_does_not_enforce_asks_nobody(mode: Mode) -> None:
    let_pass = fresh(replace(RULES, mode=mode))
    assert kinds(after(let_pass, (5.0, Violated(violation())))[1]) == [WouldHave, Report, Reattest]


def test_policy_that_holds_nothing_closes_at_once() -> None:
    assert not after(fresh(Rules(Mode.ENFORCE)), (5.0, Violated(violation())))[0].open


@pytest.mark.parametrize(
    "never",
    [
        violation(tamper=True),
        violation(found=""),
        violation(found="0" * 64),
        violation(subject="/srv/a\nb"),
        replace(violation(), kind="collector-overflowed"),
        replace(violation(), kind="file-unreadable"),
        replace(violation(), kind="a word of nobody's"),
        replace(violation(), kind="proxy-undenied", layer=Layer.PROXY),
    ],
    ids=["tamper", "content-untold", "content-unread", "untellable", "events-lost", "unreadable", "unknown", "envoy"],
)
def test_what_could_be_a_tamper_or_cannot_be_named_exactly_closes_at_once(never: Violation) -> None:
    for state in (fresh(), asking(), holding()):
        closed, commands = after(state, (5.15, Violated(never)))
        assert not closed.open and not closed.contested
        assert Close in kinds(commands) and Ask not in kinds(commands)


@pytest.mark.parametrize(
    "event",
    [
        Violated(violation(5.1, tamper=True)),
        Revoked(violation(5.1, tamper=True)),
        MeasurerLost(violation(5.1)),
        Stalled("slept"),
        WorkloadEnded("gone"),
        RulesChanged(Rules(Mode.ENFORCE)),
        HoldOver(),
        replace(affirmed(2, generation=1, measured=5.05, tier=Tier.CONTRAINDICATED), cause=violation(5.0)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_whatever_else_closes_closes_what_is_held_or_asked_about(event: Event) -> None:
    for state in (asking(), holding()):
        closed, commands = after(state, (5.15, event))
        assert not closed.open and not closed.contested and not closed.drifts
        assert Close in kinds(commands)
        told = [each.violation for each in commands if isinstance(each, Report)]
        assert (violation() in told) is (state.question is not None), "what was asked about is told, and once"


def test_the_same_again_asks_nothing_and_another_content_asks_anew() -> None:
    state = holding()
    again, commands = after(state, (6.0, Violated(violation(6.0))))
    assert again.held and again.generation > state.generation
    assert kinds(commands) == [Reattest]
    anew, commands = after(state, (6.0, Violated(violation(6.0, found="b" * 64))))
    assert kinds(commands) == [Ask]
    assert anew.question is not None
    assert [each.found for each in anew.question.drifts] == ["b" * 64], "what is not there any more is not asked about"


def test_another_drift_is_another_question_about_both_and_gives_no_more_time() -> None:
    first = asking()
    both, commands = after(first, (5.2, Violated(violation(5.2, subject=OTHER))))
    assert kinds(commands) == [Ask]
    assert first.question is not None and both.question is not None
    assert {each.subject for each in both.question.drifts} == {"/srv/app/main.py", OTHER}
    assert both.question.until == first.question.until
    stale, commands = after(both, (5.21, answered(first, held=True)))
    assert stale.question is not None and not stale.held
    assert kinds(commands) == [Drop], "what was said of less says nothing of all"
    held, commands = after(both, (5.22, answered(both, held=True)))
    assert held.held
    assert [each.violation.subject for each in commands if isinstance(each, Report)] == ["/srv/app/main.py", OTHER]


def test_more_drift_than_can_be_told_closes() -> None:
    state = fresh()
    for number in range(MOST_DRIFTS + 1):
        state, _ = after(state, (5.0, Violated(violation(5.0, subject=f"/srv/app/{number}"))))
    assert not state.open


def test_a_marked_result_goes_on_with_what_is_open_and_opens_nothing() -> None:
    state, commands = after(holding(), (7.0, marked(2, generation=1, measured=6.0, end=200.0)))
    assert state.held and state.lease is not None and state.lease.boot_end == 200.0
    assert kinds(commands) == [Serve]
    for closed in (State(RULES), after(asking(), (6.0, Ticked()))[0]):
        dropped, commands = after(closed, (7.0, marked(2, generation=closed.generation, measured=6.5)))
        assert not dropped.open
        assert kinds(commands) == [Drop]


def test_drift_that_only_an_appraisal_found_is_held_by_its_mark_and_closes_without_it() -> None:
    state, commands = after(fresh(), (7.0, marked(2, generation=0, measured=6.0)))
    assert state.held and kinds(commands) == [Serve]
    verdict = replace(marked(3, generation=0, measured=7.0), tier=Tier.CONTRAINDICATED, held=False, lease=None)
    closed, commands = after(state, (8.0, verdict))
    assert not closed.open and Close in kinds(commands)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tier": Tier.CONTRAINDICATED},
        {"tier": Tier.AFFIRMING},
        {"tier": Tier.NONE},
        {"lease": None},
        {"lease": Lease(2, 6.0, 6.0 + 1e9)},
    ],
    ids=["contraindicated", "affirming", "none", "no-lease", "lease-over"],
)
def test_a_mark_that_fits_nothing_closes(wrong: dict[str, object]) -> None:
    result = marked(2, generation=0, measured=6.0)
    for state in (fresh(), fresh(Rules(Mode.ENFORCE))):
        changed = replace(result, **wrong) if state.rules.holds else result  # type: ignore[arg-type] # fields of it
        assert not after(state, (7.0, changed))[0].open


def test_a_mark_from_before_the_drift_is_dropped() -> None:
    early, commands = after(holding(), (7.0, marked(2, generation=1, measured=4.9, end=200.0)))
    assert early.lease is not None and early.lease.boot_end == 100.0
    assert commands == [Drop("measured before the cause"), Reattest(full=True)]


def test_a_hold_ends_with_its_lease_and_with_repair() -> None:
    assert not after(holding(), (100.0, Ticked()))[0].open
    repaired, commands = after(holding(), (7.0, affirmed(2, generation=1, measured=6.0)))
    assert repaired.open and not repaired.warned and not repaired.contested
    assert kinds(commands) == [Serve]


def test_repair_before_the_answer_needs_none_and_is_told_all_the_same() -> None:
    repaired, commands = after(asking(), (5.1, affirmed(2, generation=1, measured=5.05)))
    assert repaired.open and not repaired.contested
    assert kinds(commands) == [Serve, Report]
    late, commands = after(repaired, (5.2, Answered(1, held=True)))
    assert late == repaired and kinds(commands) == [Drop]


def test_where_drift_takes_a_new_instance_it_does_so_once_it_closes() -> None:
    strict = replace(RULES, drift=Recovery.REPLACE)
    held = holding(strict)
    assert not held.sticky
    closed, commands = after(held, (6.0, HoldOver()))
    assert kinds(commands) == [Latch, Close, Report]
    assert not after(closed, (8.0, affirmed(2, generation=closed.generation, measured=7.0)))[0].open


def test_what_is_held_does_not_count_as_a_closing_and_what_closes_does() -> None:
    flapping = replace(RULES, flaps=Flaps(1, 1000.0))
    held = holding(flapping)
    assert held.closings.drift == ()
    closed, _ = after(held, (6.0, HoldOver()))
    assert closed.closings.drift == (6.0,) and not closed.sticky
    opened, _ = after(closed, (8.0, affirmed(2, generation=closed.generation, measured=7.0)))
    asked, _ = after(opened, (9.0, Violated(violation(9.0))))
    shut, _ = after(asked, (9.1, answered(asked, held=False)))
    assert [each.violation.kind for each in shut.sticky] == ["flapping"]


def test_going_over_to_audit_and_back_closes_what_was_held() -> None:
    let_pass, commands = after(holding(), (6.0, RulesChanged(replace(RULES, mode=Mode.AUDIT))))
    assert let_pass.open and not let_pass.contested
    assert Close not in kinds(commands)
    assert not after(let_pass, (7.0, RulesChanged(RULES)))[0].open


def test_a_break_glass_order_waives_without_a_question_and_its_end_ends_no_hold() -> None:
    waived = Waived(Waiver("bg-1", 50.0, 50.0 + 1e9))
    noted, commands = after(fresh(), (2.0, waived), (5.0, Violated(violation())))
    assert noted.excepted and Ask not in kinds(commands)
    strict = holding(replace(RULES, drift=Recovery.REPLACE))
    over, commands = after(strict, (6.0, waived), (7.0, Waived(None)))
    assert over.held and not over.sticky and commands == []


def test_what_policy_says_anew_while_it_still_holds_changes_nothing() -> None:
    for state in (asking(), holding()):
        assert after(state, (5.15, RulesChanged(replace(RULES, minimum_closed=5.0))))[0].contested


# Random histories.

SUBJECTS = st.sampled_from(["/srv/app/main.py", OTHER, THIRD])
CONTENTS = st.sampled_from(["a" * 64, "b" * 64])
MOMENTS = [
    "drift", "drift", "drift", "tamper", "yes", "yes", "no", "stale-yes", "forged-yes", "over", "affirmed", "marked",
    "marked-early", "contraindicated", "ticked", "stalled", "lost", "revoked", "audit", "enforce", "all", "waived",
    "unwaived", "released",
]  # fmt: skip
HISTORIES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, 0.1, 0.25, 1.0, 30.0]), st.sampled_from(MOMENTS), SUBJECTS, CONTENTS),
    max_size=40,
)
SPOKEN = [Rules(Mode.ENFORCE, holds=True), Rules(Mode.ENFORCE, Recovery.REPLACE, holds=True, flaps=Flaps(2, 100.0))]


def fitting(what: str, state: State, now: float, subject: str, content: str) -> Event:
    """The event as it fits the state of that moment."""
    number = state.question.number if state.question is not None else state.generation
    result = {"generation": state.generation, "measured": now - 0.001, "end": now + 60.0}
    sequence = state.sequence + 1
    match what:
        case "drift" | "tamper":
            return Violated(violation(now - 0.001, tamper=what == "tamper", subject=subject, found=content))
        case "yes" | "no":
            return Answered(number, what == "yes")
        case "stale-yes" | "forged-yes":
            return Answered(number - 1 if what == "stale-yes" else number + 1, held=True)
        case "affirmed":
            return affirmed(sequence, **result)  # type: ignore[arg-type] # by name
        case "marked":
            return marked(sequence, **result)  # type: ignore[arg-type] # by name
        case "marked-early":
            return marked(sequence, generation=state.generation - 1, measured=now - 0.001)
        case "contraindicated":
            verdict = affirmed(sequence, tier=Tier.CONTRAINDICATED, **result)  # type: ignore[arg-type] # by name
            return replace(verdict, lease=None, cause=replace(violation(now), kind="contraindicated", subject=subject))
        case "lost":
            return MeasurerLost(violation(now))
        case "revoked":
            return Revoked(violation(now, tamper=True))
        case "audit" | "enforce" | "all":
            return RulesChanged(replace(state.rules, mode=Mode.AUDIT if what == "audit" else Mode.ENFORCE,
                                        holds=what != "all"))  # fmt: skip
        case "waived" | "unwaived":
            return Waived(Waiver(f"bg-{now}", now + 20.0, now + 20.0 + 1e9) if what == "waived" else None)
        case _:
            simple: dict[str, Event] = {"over": HoldOver(), "ticked": Ticked(), "stalled": Stalled("stall")}
            return simple.get(what) or Released(frozenset(each.generation for each in state.sticky))


@settings(max_examples=1500, deadline=None)
@given(HISTORIES, st.sampled_from(SPOKEN))
def test_in_any_order_drift_is_open_only_by_an_answer_in_time_or_a_mark_and_never_beyond_its_lease(
    history: list[tuple[float, str, str, str]], rules: Rules
) -> None:
    state, serving, now = State(rules), False, 0.0
    opened_by_answer = False
    for pause, what, subject, content in history:
        now += pause
        event = fitting(what, state, now, subject, content)
        before, decided = state, step(state, event, at(now))
        state = decided.state
        enforcing = before.rules.mode is Mode.ENFORCE
        asks = [each for each in decided.commands if isinstance(each, Ask)]
        closes = [each for each in decided.commands if isinstance(each, Close)]
        for command in decided.commands:
            if isinstance(command, Close):
                serving = False
            elif isinstance(command, Serve):
                held = isinstance(event, Appraised) and event.held and enforcing
                assert not held or before.open, "a mark opens nothing"
                serving = True
        assert serving == state.open, "what was commanded is what the machine believes"
        if what in ("tamper", "revoked", "lost", "stalled") and enforcing:
            assert not state.open, "never held"
        if what == "over" and before.contested:
            assert closes
        if asks:
            assert enforcing and before.rules.holds and before.open and what == "drift"
        if state.question is not None:
            assert state.open and state.rules.mode is Mode.ENFORCE and now < state.question.until <= now + 0.25
        if not before.held and state.held:
            assert what in ("yes", "marked"), "by an answer to the question that stands, or by a mark"
            assert what != "yes" or (before.question is not None and now < before.question.until)
            opened_by_answer = True
        if state.open and state.rules.mode is Mode.ENFORCE:
            assert state.lease is not None and not state.lease.over(at(now))
            assert not state.sticky
        if before.contested and not state.contested and state.open and state.rules.mode is Mode.ENFORCE:
            let_pass = what in ("affirmed", "waived", "marked") or state.excepted
            assert let_pass, "else it would have been let go, and not closed"
        reports = [each.violation for each in decided.commands if isinstance(each, Report)]
        if before.question is not None and state.question is None:
            assert {each.violation for each in before.question.untold} <= {*reports}, "nothing goes untold"
    if opened_by_answer and state.held:
        assert not step(state, HoldOver(), at(now)).state.open


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_with_nobody_to_answer_all_that_drifts_closes_in_time(history: list[tuple[float, str, str, str]]) -> None:
    state, now, drifted = fresh(), 1.0, float("inf")
    silent = ("yes", "stale-yes", "forged-yes", "marked", "marked-early", "affirmed", "audit", "waived", "unwaived")
    for pause, what, subject, content in history:
        now += pause
        if what in silent:
            continue
        state = step(state, fitting(what, state, now, subject, content), at(now)).state
        if what == "drift":
            drifted = min(drifted, now)
        assert not (state.open and now >= drifted + PATIENCE)
