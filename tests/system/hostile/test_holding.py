"""`maxUnavailable` at a real sidecar, under an authority, or somebody in between, that would hold what closes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.trust import Tier, TrustVector
from tests.system.hostile.authority import Asked, HostileAuthority, Move, honestly
from tests.system.hostile.world import World, decent, world
from wire import messages, problems
from wire.messages import AskHold, Done, Hold, HoldOver, Message, Request
from wire.problems import Problem
from wire.versions import OURS, Version

REFUSED = Problem(problems.BASE + "unavailable", "Unavailable", 503, "not now")


def holding(folder: Path, *, freshness: float = 4.0) -> HostileAuthority:
    """Its policy lets one drift close a share, and gives a busy machine time for an answer."""
    authority = decent(folder, freshness)
    authority.spec |= {"maxUnavailable": "25%", "escalateAfter": "2s"}
    authority.policy = authority.document()
    return authority


def marks(*, gives: bool = True, **wrong: object) -> Move:
    """A result as of what is held. gives: the sidecar may believe it."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        vector = TrustVector(executables=2, file_system=32)
        held = {"status": Tier.WARNING, "vector": vector, "reasons": ("file-modified: x",), "held": "d-" + "0" * 32}
        asked.honest = authority.answer(asked.told, replace(authority.result(asked.told), **(held | wrong)))  # type: ignore[arg-type] # fields of it
        if gives:
            authority.gives(asked)
        await asked.send(asked.frame(asked.honest))

    return move


undecided = marks(gives=False, held="")
"""A result that neither opens nor closes: the authority of these tests would affirm whatever it is shown."""


def answering(say: Callable[[AskHold], Message]) -> Callable[[Request, Message], Message]:
    return lambda request, honest: say(request) if isinstance(request, AskHold) else honest


def yes(question: AskHold) -> Message:
    return Hold(question.number, held=True, closed=1, live=4)


async def drifts(made: World) -> int:
    """The page changes, and no round says anything of it. Returns the mark from before."""
    mark, made.authority.usual = await made.play(undecided), undecided
    made.page.write_text("not as it should be")
    return mark


async def held(made: World) -> int:
    """Open in spite of its page. Returns the mark from before."""
    made.authority.on_ask = answering(yes)
    mark = await drifts(made)
    await made.said("held", "file-modified", mark)
    made.authority.usual = marks()
    return mark


async def mended(made: World) -> None:
    made.authority.on_ask, made.authority.usual = lambda _, honest: honest, honestly
    made.authority.speaks = OURS.highest
    made.page.write_text("as it should be")
    await made.opened()


@pytest.fixture(scope="module")
def running() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def one(running: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, stack = tmp_path_factory.mktemp("world"), AsyncExitStack()
    made = running.run(stack.enter_async_context(world(folder, authority=holding(folder))))
    yield made
    running.run(stack.aclose())


def played(running: asyncio.Runner, one: World, story: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        await mended(one)
        await story(one)

    running.run(whole())


NO_ANSWERS: dict[str, Callable[[AskHold], Message]] = {
    "no": lambda asked: Hold(asked.number, held=False, closed=0, live=4),
    "a yes to an older question": lambda asked: Hold(asked.number - 1, held=True, closed=1, live=4),
    "a yes to a question that is yet to come": lambda asked: Hold(asked.number + 1, held=True, closed=1, live=4),
    "no answer to this": lambda _: Done(),
    "a push in its place": lambda _: HoldOver("there is room"),
    "a refusal": lambda _: REFUSED,
}


@pytest.mark.parametrize("say", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_whatever_is_no_answer_to_this_question_closes(
    running: asyncio.Runner, one: World, say: Callable[[AskHold], Message]
) -> None:
    async def story(made: World) -> None:
        made.authority.on_ask = answering(say)
        mark = await drifts(made)
        await made.said("closed", "file-modified", mark)
        assert not [line for line in made.sidecar.lines[mark:] if line["event"] == "held"]

    played(running, one, story)


def test_a_yes_that_answers_nothing_or_somebody_elses_request_holds_nothing(
    running: asyncio.Runner, one: World
) -> None:
    async def story(made: World) -> None:
        for number in range(1, 40):
            await made.authority.raw(messages.encode(Hold(number, held=True, closed=1, live=4), number))
        mark = await drifts(made)
        await made.said("closed", "file-modified", mark)
        assert not [line for line in made.sidecar.lines[mark:] if line["event"] == "held"]

    played(running, one, story)


def test_an_authority_of_before_1_5_is_not_asked(tmp_path: Path) -> None:
    async def story() -> None:
        authority = holding(tmp_path)
        authority.speaks, authority.on_ask = Version(1, 4), answering(yes)
        async with world(tmp_path, authority=authority) as made:
            mark = await drifts(made)
            await made.said("closed", "file-modified", mark)
            assert not [line for line in made.sidecar.lines[mark:] if line["event"] == "held"]

    asyncio.run(story())


def test_what_is_held_stays_open_by_marked_results_and_closes_when_it_is_told_to(
    running: asyncio.Runner, one: World
) -> None:
    async def story(made: World) -> None:
        served, given = len(made.envoy.lines), len(made.authority.given)
        mark = await held(made)
        await made.play(marks())
        await made.envoy.heard(lambda line: line["leaf"] in list(made.authority.given)[given:])
        assert all(line["leaf"] is not None for line in made.envoy.lines[served:])
        await made.authority.push(HoldOver("there is room"))
        await made.said("closed", "file-modified", mark)
        await made.said("hold-over", "file-modified", mark)

    played(running, one, story)


def test_a_tamper_closes_what_is_held_whatever_the_authority_says(tmp_path: Path) -> None:
    async def story() -> None:
        authority = holding(tmp_path)
        authority.spec["onViolation"] = {"file-missing": "tamper"}
        authority.policy = authority.document()
        async with world(tmp_path, authority=authority) as made:
            await held(made)
            served, mark = len(made.envoy.lines), made.mark
            (made.folder / "app" / "unheard-of").write_text("another drift is another question, and is held as well")
            await made.said("reported", "acknowledged", mark)
            assert all(line["leaf"] is not None for line in made.envoy.lines[served:])
            made.page.unlink()
            await made.said("closed", "file-missing", mark)

    asyncio.run(story())


def test_a_hold_never_outlives_its_lease(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, authority=holding(tmp_path, freshness=3.0)) as made:
            await held(made)
            served = len(made.envoy.lines)
            made.authority.usual = _silent
            await made.closed(served)

    asyncio.run(story())


async def _silent(authority: HostileAuthority, asked: Asked) -> None:
    await asyncio.sleep(0)
    if asked.socket is not None:
        await asked.socket.close()


def test_a_mark_opens_nothing_that_is_closed(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, authority=holding(tmp_path)) as made:
            await made.said("closed", "file-modified", await drifts(made))
            shut = len(made.envoy.lines)
            for _ in range(3):
                mark = await made.play(marks(gives=False))
                await made.said("result-dropped", "opens nothing", mark)
            assert all(line["leaf"] is None for line in made.envoy.lines[shut:])

    asyncio.run(story())


@pytest.mark.parametrize("status", [Tier.AFFIRMING, Tier.CONTRAINDICATED, Tier.NONE])
def test_a_mark_on_any_other_verdict_closes(tmp_path: Path, status: Tier) -> None:
    async def story() -> None:
        async with world(tmp_path, authority=holding(tmp_path)) as made:
            served = len(made.envoy.lines)
            vector = TrustVector(executables=2, file_system=int(status) or 1)
            await made.play(marks(gives=False, status=status, vector=vector))
            await made.closed(served)

    asyncio.run(story())
