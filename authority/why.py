"""Why an instance is, or was, open or closed: pure, from its history and what the store knows of it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attestation.violation import ViolationClass
from authority.store.records import Explanation, Happened, Held, InstanceState, Moment, State
from wire.messages import Cause

MOST_OTHERS = 20
MOST_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. Times in Unix milliseconds; since_ms 0 and known False for a time that history does not reach.

    at_ms: the time asked about. open: might its traffic flow then? cause: what began this closing. others: what came
    after it, the latest last. repair: what opens it again, step by step. now: the state at the moment of asking.
    history: the latest changes up to the time asked about, in order; it begins at history_begins_ms. lasting: no
    measurement heals the cause. held: for what it is held now; None where it is not, or was held in the past.
    """

    instance: str
    spiffe_id: str
    registration: str
    at_ms: int
    known: bool
    state: str
    since_ms: int
    open: bool
    answer: str
    cause: Explanation | None
    others: tuple[Explanation, ...]
    repair: tuple[str, ...]
    now: str
    now_since_ms: int
    gone: bool
    history_begins_ms: int
    history: tuple[Moment, ...]
    lasting: bool = False
    held: Held | None = None


def told(instance: InstanceState, moments: Sequence[Moment], at_ms: int, now_ms: int) -> Why:
    """instance: as authority/roll.py calls it. moments: in order. at_ms: the time asked about, at most now_ms."""
    present = at_ms >= now_ms
    past = [each for each in moments if each.at_ms <= at_ms]
    state, since_ms, known = _standing(instance, past, present=present)
    explained = _explained(instance, past, state, present=present)
    cause = explained[0] if explained else None
    lasting = cause is not None and _lasts(cause, instance, present=present)
    return Why(
        instance=instance.instance.value,
        spiffe_id=instance.spiffe_id,
        registration=instance.registration,
        at_ms=at_ms,
        known=known,
        state=state.value if known else "unknown",
        since_ms=since_ms,
        open=known and state.open,
        answer=_answer(state, cause, past, instance.held if present else None)
        if known
        else "history does not reach so far back",
        cause=cause,
        others=tuple(explained[1:][-MOST_OTHERS:]),
        repair=_repair(state, cause, lasting=lasting, gone=instance.gone) if known else (),
        now=instance.state.value,
        now_since_ms=instance.since_ms,
        gone=instance.gone,
        history_begins_ms=moments[0].at_ms if moments else 0,
        history=tuple(past[-MOST_SHOWN:]),
        lasting=lasting,
        held=instance.held if present else None,
    )


def _lasts(cause: Explanation, instance: InstanceState, *, present: bool) -> bool:
    """Drift lasts where policy says so; of the past nobody knows any more."""
    return cause.violation_class != ViolationClass.DRIFT or (present and bool(instance.causes))


def _standing(instance: InstanceState, past: Sequence[Moment], *, present: bool) -> tuple[State, int, bool]:
    """State, since when, and whether that is known."""
    if present:
        return instance.state, instance.since_ms, True
    if not past:
        return State.UNATTESTED, 0, False
    lasting = _lasting(past, past[-1].state)
    return past[-1].state, lasting[0].at_ms, True


def _explained(instance: InstanceState, past: Sequence[Moment], state: State, *, present: bool) -> list[Explanation]:
    """What was found since the state began; of a quarantine that history has forgotten, what the store keeps."""
    if state in (State.FRESH, State.ENDED):
        return []
    lasting = [each for each in _lasting(past, state) if each.event is not Happened.WOULD_HAVE]
    found = [each.explanation for each in lasting if each.explanation is not None]
    if present:
        known = {each.id for each in found}
        found = [*(_kept(each) for each in reversed(instance.causes) if each.id not in known), *found]
    return found


def _lasting(past: Sequence[Moment], state: State) -> Sequence[Moment]:
    """The moments since the last one of another state."""
    begins = len(past)
    while begins and past[begins - 1].state is state:
        begins -= 1
    return past[begins:]


def _kept(cause: Cause) -> Explanation:
    return Explanation(cause.id, cause.kind, cause.kind, cause.text, cause.at_ms)


def _answer(state: State, cause: Explanation | None, past: Sequence[Moment], held: Held | None) -> str:
    let_through = (each.text for each in reversed(past) if each.event is Happened.EXCEPTED)
    excepted = next(let_through, "") if state is State.EXCEPTED else ""
    if state is State.HELD:
        excepted = "held" if held is None else str(held)
    if cause is not None:
        return f"{excepted}: {cause.kind}: {cause.text}" if excepted else f"{cause.kind}: {cause.text}"
    last = next((each.text for each in reversed(past) if each.event is not Happened.OBSERVED), "")
    match state:
        case State.FRESH:
            return "its latest evidence was affirmed"
        case State.UNATTESTED:
            return "no round has been affirmed since it enrolled"
        case State.ENDED:
            return "its sidecar ended in order, with it or without it"
        case _:
            return last or "its lease ended"


def _repair(state: State, cause: Explanation | None, *, lasting: bool, gone: bool) -> tuple[str, ...]:
    """What opens it again, the gentlest first."""
    if state in (State.FRESH, State.ENDED):
        return ()
    if state is State.WARNED:
        return (*((cause.mend,) if cause is not None and cause.mend else ()), _WARNED)
    if state is State.HELD:
        return (cause.mend if cause is not None and cause.mend else "Put back what the cause names.", _HELD)
    if state is State.EXCEPTED:
        return (cause.mend if cause is not None and cause.mend else "Put back what the order waives.", _EXCEPTED)
    if cause is None:
        return _LATE if state is State.STALE else _FIRST
    if not lasting and state is not State.UNATTESTED:
        return (cause.mend or "Put back what the cause names.", "The next full measurement after that opens it.")
    replaced = "Nothing: another instance has taken its place." if gone else "Start a new instance with a join token."
    return (replaced, *(() if gone else ("Or release this one, if you vouch for it.",)))


_UNREACHED = "history does not reach so far back"
_WARNED = "It is open: its policy serves warnings. The next result that affirms ends this one."
_HELD = "Then it is affirmed; else it closes when those that are closed for the same are repaired, or its lease ends."
_EXCEPTED = "Then it is open of itself; else it closes when the order ends (`proofbeat breakglass list`)."
_FIRST = ("Wait for its first round; its sidecar's log says what it waits for.",)
_LATE = (
    "Look whether its sidecar runs and reaches this authority: its log says why rounds fail.",
    "The next affirmed round opens it.",
)
