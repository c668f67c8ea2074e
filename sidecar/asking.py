"""Puts to the authority whether drift closes this instance, or is held back: the latest question, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attestation.errors import InvalidInput, Refused, Unavailable
from sidecar import clock
from sidecar.states import Answered, Question, Ticked
from wire.messages import AskHold
from wire.session import AuthorityClient

_MOMENT = 0.02
"""Seconds, or less where policy is less patient: files that change together are one question."""
_SHARE = 5


class Asking:
    """step: hands the machine what comes of it. Whatever is no answer in time is a no."""

    def __init__(self, client: AuthorityClient, step: Callable[[Answered | Ticked], None]) -> None:
        self._client = client
        self._step = step
        self._latest = Question(0, 0.0, frozenset())
        self._asked = asyncio.Event()

    def ask(self, question: Question) -> None:
        """In place of what was asked before. Never waits."""
        if question.until != self._latest.until:
            # Whatever becomes of the question: the machine looks at its clock then.
            asyncio.get_running_loop().call_later(_left(question), self._step, Ticked())
        self._latest = question
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled. One question at a time."""
        while True:
            await self._asked.wait()
            await asyncio.sleep(min(_MOMENT, _left(self._latest) / _SHARE))
            self._asked.clear()
            question = self._latest
            self._step(Answered(question.number, await self._held(question)))

    async def _held(self, question: Question) -> bool:
        drifts = tuple(sorted(question.drifts))
        try:
            hold = await self._client.hold_back(AskHold(question.number, drifts), _left(question))
        except (Unavailable, Refused, InvalidInput):
            return False
        return hold.held and hold.number == question.number


def _left(question: Question) -> float:
    return max(0.0, question.until - clock.now().boot)
