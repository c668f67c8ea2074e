"""What somebody should know of what was learned before it is enforced, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from attestation.calls import COMPAT, OTHER, RING, X32
from policies.author.learning.convergence import LEAST
from policies.author.learning.learned import Learned, Run

_OLDER = (COMPAT, X32)
_MOST_NAMED = 8


def remarks(learned: Learned) -> tuple[str, ...]:
    return tuple(_remarks(learned))


def standing(run: Run) -> str:
    """Whether one run has converged, and how far it is if not."""
    if run.converged:
        return f"converged: nothing new for {run.quiet:.0f} s"
    return f"not converged: nothing new for {run.quiet:.0f} s, and it takes {run.needed:.0f} s"


def _remarks(learned: Learned) -> Iterator[str]:
    if not learned.converged:
        yield (
            f"It may do what was not seen: watch it until nothing new comes for {LEAST:.0f} s, and for as long as it "
            "took until the last new thing came (--until-converged), or put several runs together (--merge)."
        )
    if learned.unseen:
        yield (
            f"The start of {_listed(learned.unseen)} was not seen, and what is called in it may be told after a "
            "restart: restart it while it is watched, inside of its scope, or have it started (-- CMD)."
        )
    if learned.calls and not any(run.ended for run in learned.runs):
        yield "How it ends was not seen; a run that starts it (-- CMD) ends it as well."
    if learned.volatile:
        yield (
            f"{_listed(tuple(learned.volatile))} changed: nobody judges the content, and nothing may be executed from "
            "there. Where that is code, measure less (--include), or learn when nothing is deployed."
        )
    for name, why in _CALLS:
        if name in learned.called:
            yield why
    if any(each.startswith(RING) for each in learned.called):
        yield "What io_uring is asked for passes no seccomp filter: the measurer holds it, the profile does not."
    if any(run.lost for run in learned.runs):
        yield "The kernel had no room for some events: what was called is known all the same, by whom is not."


_CALLS = (
    (
        COMPAT,
        "It calls by the interface of 32 bits, whose calls have no names here: the references allow any of them, the "
        "profile those of the same names.",
    ),
    (X32, "It calls by the x32 interface: the references allow any such call, the profile those of the same names."),
    (OTHER, "It makes a call that has no name here: the references allow any such call, the profile none."),
)


def _listed(things: tuple[str, ...]) -> str:
    more = f" and {len(things) - _MOST_NAMED} more" if len(things) > _MOST_NAMED else ""
    return ", ".join(things[:_MOST_NAMED]) + more
