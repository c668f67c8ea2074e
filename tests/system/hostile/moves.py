"""What a hostile authority does with a request for a result, whatever it is that it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from attestation.errors import InvalidInput
from attestation.evidence import Evidence
from attestation.instance import InstanceId
from attestation.results import Result
from attestation.trust import Tier, TrustVector
from tests.system.hostile.authority import Asked, HostileAuthority, Move
from wire import messages, problems
from wire.messages import Answer
from wire.problems import Kind, Problem

SOMEBODY = InstanceId("i-" + "5" * 32)


@dataclass(frozen=True)
class Hostile:
    """event: the log line that follows, and a part of what it says."""

    name: str
    move: Move
    says: str
    event: str = "round-failed"

    def __str__(self) -> str:
        return self.name


def flipped(position: float, bit: int) -> Hostile:
    """One bit of an otherwise good answer, anywhere. A flip that leaves the answer good leaves it honest."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        frame = bytearray(asked.frame(asked.honest))
        frame[int(position * len(frame))] ^= 1 << bit
        if _still_good(authority, asked, bytes(frame)):
            authority.gives(asked)
        await asked.send(bytes(frame))

    return Hostile(f"bit {bit} at {position:.3f}", move, "")


def _still_good(authority: HostileAuthority, asked: Asked, frame: bytes) -> bool:
    """Does it say the same of what an identity hangs on? Then only its next nonce, or a number, was touched."""
    try:
        message = messages.decode(frame).message
        return isinstance(message, Answer) and (message.ear, message.chain) == (asked.honest.ear, asked.honest.chain)
    except InvalidInput:
        return False


def held_until(released: asyncio.Event) -> Move:
    """What would have been an honest answer, but late: it comes after whatever released it."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        authority.asking.set()
        await released.wait()
        await asked.send(asked.frame(asked.honest))

    return move


def twice(second: Callable[[HostileAuthority, Evidence], Answer]) -> Move:
    """An honest answer, and another one under the same number."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        authority.gives(asked)
        await asked.send(asked.frame(asked.honest))
        if asked.socket is not None:
            await asked.send(asked.frame(second(authority, asked.told)))

    return move


async def silent(_: HostileAuthority, asked: Asked) -> None:
    """No answer on a session; by POST one that says to come back later."""
    if asked.socket is None:
        await asked.send(asked.frame(problem(Kind.UNAVAILABLE, 503)))


def contraindicated(authority: HostileAuthority, told: Evidence) -> Answer:
    result: Result = replace(
        authority.result(told),
        status=Tier.CONTRAINDICATED,
        vector=TrustVector(executables=96),
        reasons=("file-modified: /srv/x is not as referenced",),
    )
    return authority.answer(told, result)


def problem(kind: Kind, status: int) -> Problem:
    return Problem(problems.BASE + kind, "T", status, f"told {kind}", "somewhere", "Mend it.")
