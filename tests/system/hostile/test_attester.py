"""A hostile attester against a real authority: it gets nothing but refusals by name, and the neighbour is served."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from attestation.errors import Refused
from authority import doors
from tests.system.authority.town import Attester, Town, attester, measured, posted, stranger, town
from tests.system.hostile.attester import ATTACKS, HalfOpen, Hostile
from wire.messages import Attest
from wire.problems import Kind
from wire.session import JoinToken

QUARANTINING = {Kind.EVIDENCE_CLONED, Kind.INSTANCE_QUARANTINED}


async def earns_a_leaf(neighbour: Attester) -> None:
    """With a nonce of now, whatever happened to the authority's clock meanwhile."""
    neighbour.nonce = await neighbour.client.challenge()
    assert (await neighbour.round()).chain


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_by_its_name_and_the_neighbour_does_not_notice(tmp_path: Path, attack: str) -> None:
    async def story() -> None:
        act, kind = ATTACKS[attack]
        async with town(tmp_path) as where, attester(where, 1, session=False) as one, attester(where, 2) as neighbour:
            with pytest.raises(Refused) as refused:
                await act(Hostile(where, one))
            assert (refused.value.kind, refused.value.what != "") == (kind, True)
            where.clock.ahead = 0.0
            state = await where.authority.instance(one.instance)
            assert state.quarantined == (kind in QUARANTINING)
            await earns_a_leaf(neighbour)

    asyncio.run(story())


def test_the_attacks_meet_most_of_the_problems_that_an_attester_can_meet() -> None:
    assert len({kind for _, kind in ATTACKS.values()}) >= 24


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.sampled_from(sorted(ATTACKS)).map(lambda name: (name, 0)),
        st.just(("honest round", 0)),
        st.just(("neighbour", 0)),
        st.tuples(st.just("flip"), st.integers(0, 10_000)),
        st.tuples(st.just("cut"), st.integers(0, 10_000)),
    ),
    min_size=3,
    max_size=12,
)


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    print_blob=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS)
@example(steps=[("neighbour", 0), ("another body than was claimed", 0)])  # when the true body is known already
@pytest.mark.timeout(300)  # a busy machine takes its time over twelve stories
def test_attacks_and_honest_rounds_in_any_order_issue_to_the_honest_only(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    async def story() -> None:
        folder = tmp_path_factory.mktemp("town")
        async with town(folder) as where, attester(where, 1, session=False) as one, attester(where, 2) as neighbour:
            for name, number in steps:
                await step(where, one, neighbour, name, number)
                where.clock.ahead = 0.0
            await earns_a_leaf(neighbour)

    asyncio.run(story())


async def step(where: Town, one: Attester, neighbour: Attester, name: str, number: int) -> None:
    before = await where.authority.instance(one.instance)
    one.layers, one.generation = measured(), before.generation
    match name:
        case "neighbour":
            await earns_a_leaf(neighbour)
        case "honest round" if before.quarantined:
            with pytest.raises(Refused) as refused:
                await earns_a_leaf(one)
            assert refused.value.kind == Kind.INSTANCE_QUARANTINED
        case "honest round":
            await earns_a_leaf(one)
        case "flip" | "cut":
            one.nonce = await one.client.challenge()
            with pytest.raises(Refused):
                await posted(where, one, Attest(damaged(one.signed(), name, number)))
        case _:
            with pytest.raises(Refused):
                await ATTACKS[name][0](Hostile(where, one))


def damaged(signed: bytes, how: str, number: int) -> bytes:
    at = number % len(signed)
    if how == "cut":
        return signed[:at]
    return signed[:at] + bytes([signed[at] ^ (1 << number % 8)]) + signed[at + 1 :]


def test_six_hundred_half_open_connections_keep_no_honest_attester_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, AsyncExitStack() as stack:
            old = await stack.enter_async_context(attester(where, 2))
            half_open = HalfOpen(where)
            stack.callback(half_open.close)
            await half_open.open(600)
            await earns_a_leaf(old)
            assert old.client.connected
            new = stranger(where, 3)
            stack.push_async_callback(new.client.close, clean=False)
            await new.enrol(JoinToken(await where.authority.create_token("web")))
            assert (await new.round()).chain
            assert half_open.standing <= doors.MOST_STRANGERS

    asyncio.run(story())


def test_whoever_says_nothing_in_time_is_thrown_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("HANDSHAKE_SECONDS", "HEAD_SECONDS", "BODY_SECONDS"):
        monkeypatch.setattr(doors, bound, 0.2)

    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 2) as neighbour:
            half_open = HalfOpen(where)
            await half_open.open(6)
            async with asyncio.timeout(15):
                await half_open.ended()
            assert half_open.heard(b"408")
            assert neighbour.client.connected
            await earns_a_leaf(neighbour)
            half_open.close()

    asyncio.run(story())
