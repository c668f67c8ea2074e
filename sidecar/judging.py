"""Facts, held against the policy in force: what contradicts it, and what may be the repair of that."""

from __future__ import annotations

from collections.abc import Callable

from attestation.facts import Fact
from attestation.violation import Violation
from policies.appraise.violation import undecided, violates
from sidecar.governing import Governed

MOST_EARLY = 10_000
"""Facts that wait for the first policy."""


class Judging:
    """violated: called with each contradiction. harmless: called for each fact that is none.

    undecided: called for each of those of which only a whole measurement tells whether it is one. too_many: called
    where more facts come before the first policy than can be kept.
    """

    def __init__(
        self,
        *,
        violated: Callable[[Violation], None],
        harmless: Callable[[], None],
        undecided: Callable[[], None],
        too_many: Callable[[], None],
    ) -> None:
        self._violated = violated
        self._harmless = harmless
        self._undecided = undecided
        self._too_many = too_many
        self._governed: Governed | None = None
        self._early: list[Fact] = []

    @property
    def governed(self) -> Governed | None:
        """What is in force; None before the first policy, when nothing is open yet."""
        return self._governed

    def rule(self, governed: Governed) -> None:
        """By this from now on. What was seen before the first is judged by `catch_up`, once all else goes by it too."""
        self._governed = governed

    def catch_up(self) -> None:
        early, self._early = self._early, []
        for fact in early:
            self.saw(fact)

    def saw(self, fact: Fact) -> None:
        """Judged at once, or kept until there is something to judge it by."""
        if self._governed is None:
            self._keep(fact)
            return
        violation = violates(fact, self._governed.policy, self._governed.references)
        if violation is not None:
            self._violated(violation)
            return
        self._harmless()
        if undecided(fact, self._governed.policy):
            self._undecided()

    def _keep(self, fact: Fact) -> None:
        self._early.append(fact)
        if len(self._early) > MOST_EARLY:
            self._too_many()
