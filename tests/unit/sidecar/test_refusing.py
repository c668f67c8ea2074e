"""From a list that is heard to what is served, and what is cut once Envoy has taken it over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestation.channel import MOST_BYTES, Message, Sever, Severed, encode
from attestation.errors import MalformedResult, Unavailable
from authority.issuer.ca import Ca
from sidecar import clock
from sidecar.delivery.severing import MOST_AT_ONCE, PAUSES, Cut, Severing
from sidecar.denials import Refusals
from sidecar.refusing import Refusing
from tests.unit.sidecar.listed import ADDRESS, chain, denied, made, member, told
from wire.messages import Denials


@dataclass
class Story:
    """One sidecar's hearing. answer: what the authority says when it is asked."""

    ca: Ca
    answer: Denials | Exception | None = None
    served: list[Refusals] = field(default_factory=list)
    asked: int = 0
    meanwhile: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.chain = chain(self.ca)
        self.refusing = Refusing(
            ask=self._ask, serve=self.served.append, membership=lambda: member(self.ca), tell=lambda _: None
        )

    async def _ask(self) -> Denials | None:
        self.asked += 1
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def catches_up(self, version: int) -> None:
        asyncio.run(self.refusing.caught_up(version, self.chain))

    @property
    def versions(self) -> list[int]:
        return [each.version for each in self.served]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """By the clock on the wall."""
    return Story(made(tmp_path / "ca", datetime.fromtimestamp(int(clock.now().wall), UTC)))


def test_what_is_heard_before_the_first_certificate_waits_for_it_and_is_asked_for_by_nobody(story: Story) -> None:
    for version in (2, 4, 3):
        story.refusing.told(told(story.ca, denied(ADDRESS), version=version))
    assert story.versions == []
    story.catches_up(4)
    assert (story.versions, story.asked) == ([4], 0)


def test_an_answer_that_speaks_of_a_later_list_has_it_asked_for_before_its_certificate_is_served(story: Story) -> None:
    story.answer = told(story.ca, denied(), version=6)
    story.catches_up(5)
    assert (story.versions, story.asked) == ([6], 1)
    story.catches_up(6)
    assert (story.versions, story.asked) == ([6], 1)


def test_with_a_list_as_old_as_before_or_none_nothing_is_served(story: Story) -> None:
    for answer in (None, told(story.ca, version=4)):
        story.answer = answer
        with pytest.raises(MalformedResult, match="older than version 5"):
            story.catches_up(5)
    story.answer = Unavailable("nobody there")
    with pytest.raises(Unavailable):
        story.catches_up(5)
    assert story.versions == []


def test_a_push_that_overtakes_the_answer_is_what_is_in_force(story: Story) -> None:
    story.catches_up(0)
    story.answer = told(story.ca, version=5)
    story.meanwhile = lambda: story.refusing.told(told(story.ca, version=6))
    story.catches_up(5)
    assert story.versions == [6]


def test_a_push_that_cannot_be_believed_leaves_the_list_before_it(story: Story) -> None:
    story.catches_up(0)
    story.refusing.told(told(story.ca, denied(), version=5))
    for bad in (told(story.ca, version=4), told(story.ca, denied(), version=6, serials=())):
        with pytest.raises(MalformedResult):
            story.refusing.told(bad)
    story.refusing.told(told(story.ca, denied(), version=5))
    assert story.versions == [5]


# What is open to the denied.


class Measurer:
    """Answers each order with what a story says is left."""

    def __init__(self, *left: int) -> None:
        self._left = list(left)
        self.orders: list[Sever] = []
        self._over: asyncio.Queue[Cut] = asyncio.Queue()
        self.severing = Severing(self._ordered, self._over.put_nowait)

    def _ordered(self, message: Message) -> None:
        assert isinstance(message, Sever)
        self.orders.append(message)
        left = self._left.pop(0) if self._left else 0
        asyncio.get_running_loop().call_soon(self.severing.severed, Severed(message.number, 2, left))

    async def until_over(self) -> Cut:
        async with asyncio.timeout(5):
            return await self._over.get()


def test_it_is_cut_and_looked_for_once_more_since_envoy_may_have_been_about_to_connect() -> None:
    async def scenario() -> None:
        measurer = Measurer(0, 0)
        measurer.severing.begin((ADDRESS,))
        assert await measurer.until_over() == Cut((ADDRESS,), 4, 0)
        assert [each.addresses for each in measurer.orders] == [(ADDRESS,)] * 2

    asyncio.run(scenario())


def test_what_stays_is_looked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        measurer = Measurer(3, 3, 1, 0)
        measurer.severing.begin((ADDRESS,))
        assert (await measurer.until_over()).left == 0
        assert len(measurer.orders) == 4
        stubborn = Measurer(*[7] * 20)
        stubborn.severing.begin((ADDRESS,))
        assert (await stubborn.until_over()).left == 7
        assert len(stubborn.orders) == len(PAUSES) + 1

    monkeypatch.setattr("sidecar.delivery.severing.PAUSES", (0.001,) * len(PAUSES))
    asyncio.run(scenario())


def test_more_addresses_than_an_order_holds_are_several_orders_and_one_look() -> None:
    async def scenario() -> None:
        measurer = Measurer(1)
        many = tuple(f"192.0.2.7:{port}" for port in range(1, MOST_AT_ONCE + 3))
        measurer.severing.begin(many)
        assert await measurer.until_over() == Cut(many, 8, 0)
        assert [len(each.addresses) for each in measurer.orders] == [MOST_AT_ONCE, 2] * 2
        assert all(len(encode(each)) <= MOST_BYTES for each in measurer.orders)

    asyncio.run(scenario())


def test_another_list_takes_the_place_of_the_one_before_and_its_late_answers_count_for_nothing() -> None:
    async def scenario() -> None:
        measurer = Measurer(5)
        measurer.severing.begin((ADDRESS,))
        measurer.severing.begin(("192.0.2.8:1",))
        assert await measurer.until_over() == Cut(("192.0.2.8:1",), 4, 0)
        measurer.severing.begin(())
        assert len(measurer.orders) == 3

    asyncio.run(scenario())
