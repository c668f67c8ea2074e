"""The state, and what each step of it commands, carried out: what closes or opens traffic before anything else."""

from __future__ import annotations

from collections.abc import Callable

from attestation.instance import InstanceId
from attestation.violation import Violation
from sidecar import clock, freshness, states
from sidecar.causes import Causes
from sidecar.reports import report_of
from sidecar.states import Lease, Now, Phase, Question, Rules, State
from sidecar.telling import Telling
from wire.messages import Report


class Machine:
    """close, serve: carry out the command of that name, at once. ask, report, reattest: see to it that it is done.

    contain: called with the state before and after each step, once what closes or opens is done. ended: called after a
    step that found the workload ended.
    """

    def __init__(
        self,
        causes: Causes,
        telling: Telling,
        *,
        close: Callable[[str, Violation | None], None],
        serve: Callable[[Lease], None],
        ask: Callable[[Question], None],
        report: Callable[[Report], None],
        reattest: Callable[[bool], None],
        contain: Callable[[State, State], None],
        ended: Callable[[], None],
    ) -> None:
        self._causes = causes
        self._telling = telling
        self._close = close
        self._serve = serve
        self._ask = ask
        self._report = report
        self._reattest = reattest
        self._contain = contain
        self._ended = ended
        self._state = State(Rules())

    @property
    def state(self) -> State:
        return self._state

    def recall(self, instance: InstanceId) -> None:
        """What an earlier run latched for this instance stays latched. Raises InvalidConfiguration."""
        self._state = self._causes.recalled(instance, self._state)

    def step(self, event: states.Event) -> None:
        before, now = self._state, clock.now()
        decided = freshness.step(before, event, now)
        self._state = decided.state
        # 1. What closes or opens traffic, in the machine's order and without a pause.
        for command in decided.commands:
            self._move(command, decided.state.generation, now)
        # 2. What is done to the workload itself.
        self._contain(before, self._state)
        # 3. Everything else.
        self._causes.sync()
        for command in decided.commands:
            self._follow_up(command, now)
        self._telling.stepped(before, self._state, now)
        if self._state.phase is Phase.ENDED:
            self._ended()

    def _move(self, command: states.Command, generation: int, now: Now) -> None:
        match command:
            case states.Latch(cause):
                self._causes.latch(cause, now)
            case states.Close(reason, cause):
                self._close(self._causes.refusal(generation, cause, now) or reason, cause)
            case states.Serve(lease):
                self._serve(lease)
            case _:
                pass

    def _follow_up(self, command: states.Command, now: Now) -> None:
        match command:
            case states.Ask(question):
                self._ask(question)
            case states.Report(generation, violation):
                named = self._causes.named(generation, violation, now)
                self._report(report_of(generation, violation, named.at_ms))
                self._telling.violated(violation, named.id)
            case states.Reattest(full):
                self._reattest(full)
            case states.Count(closings):
                self._causes.count(closings)
            case states.Keep(seconds):
                self._telling.kept(seconds)
            case states.WouldHave(reason):
                self._telling.would_have(reason)
            case states.Drop(reason):
                self._telling.dropped(reason)
            case _:
                pass
