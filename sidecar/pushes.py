"""What the authority says unasked, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.detectors.alerts import Alert
from attestation.errors import MalformedResult
from sidecar import clock, states
from sidecar.causes import Causes
from sidecar.rounds import RoundLoop
from sidecar.states import State
from sidecar.telling import Telling
from wire.messages import (
    Alerted,
    AttestNow,
    BreakGlass,
    Denials,
    HoldOver,
    PolicyChanged,
    Push,
    Quarantined,
    Released,
)


class Pushes:
    """step: hands an event to the machine. adopt: takes a policy document, denied: a list of denials; either raises
    MalformedResult. break_glass: takes the orders that are in force. alerted: takes a detector's alert.

    key: the one that the authority signs releases with.
    """

    def __init__(
        self,
        causes: Causes,
        rounds: RoundLoop,
        telling: Telling,
        *,
        state: Callable[[], State],
        step: Callable[[states.Event], None],
        adopt: Callable[[str], None],
        denied: Callable[[Denials], None],
        break_glass: Callable[[tuple[str, ...]], None],
        alerted: Callable[[Alert], None],
        key: Callable[[], ec.EllipticCurvePublicKey],
    ) -> None:
        self._causes = causes
        self._rounds = rounds
        self._telling = telling
        self._state = state
        self._step = step
        self._adopt = adopt
        self._denied = denied
        self._break_glass = break_glass
        self._alerted = alerted
        self._key = key

    def pushed(self, push: Push) -> None:
        match push:
            case AttestNow():
                # Its nonce is left unused: only one we asked for tells when its lease began at the latest.
                self._rounds.want(full=push.nonce.full)
            case Quarantined(cause):
                if not self._causes.known(cause.id):
                    self._step(states.Revoked(self._causes.ordered(cause, clock.now())))
            case Released(order):
                self._released(order)
            case PolicyChanged(document=document):
                self._policy_changed(document)
            case Denials():
                self._denials_changed(push)
            case BreakGlass(orders):
                self._break_glass(orders)
            case Alerted(alerts):
                for alert in alerts:
                    self._alerted(alert)
            case HoldOver():
                self._step(states.HoldOver())

    def _released(self, order: str) -> None:
        try:
            generations = self._causes.released(order, self._key(), self._state())
        except MalformedResult as error:
            self._telling.push_failed(error.sentence)
        else:
            self._step(states.Released(generations))

    def _denials_changed(self, told: Denials) -> None:
        try:
            self._denied(told)
        except MalformedResult as error:
            self._telling.push_failed(error.sentence)

    def _policy_changed(self, document: str) -> None:
        try:
            self._adopt(document)
        except MalformedResult as error:
            self._telling.push_failed(error.sentence)
        else:
            self._rounds.want(full=True)
