"""A hostile authority against a real sidecar: whatever it says, no identity is served that was not earned."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidInput, Unavailable
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import ca as authorities
from authority.issuer import leaf
from tests.system.hostile import moves, pushes
from tests.system.hostile.answers import EVERY
from tests.system.hostile.authority import (
    IDENTITY,
    TRUST_DOMAIN,
    HostileAuthority,
    another_key,
    context_of,
    honestly,
    listening,
    made_ca,
    reserved,
)
from tests.system.hostile.moves import Hostile
from tests.system.hostile.pushes import PUSHES, Pushed
from tests.system.hostile.world import World, decent, sidecar, workload, world
from wire import problems
from wire.messages import AttestNow, Cause, Done, Enrolment, Message, PolicyChanged, Quarantined, Released, Request
from wire.problems import Problem
from wire.session import AuthorityClient, Endpoint, JoinToken

SENTENCE = re.compile(r".+: .+\. .+[.?]")
"""Where: what. How to mend it."""
AS_TOLD = [hostile for hostile in EVERY if hostile.name == "a problem that nobody knows"]
"""The authority's own words, and it said neither where nor how."""


@pytest.fixture(scope="module")
def running() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def one(running: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all that leaves a sidecar where it was."""
    stack = AsyncExitStack()
    made = running.run(stack.enter_async_context(world(tmp_path_factory.mktemp("world"))))
    yield made
    running.run(made.opened())  # nobody listened to its processes since the last test that used it
    running.run(stack.aclose())


@pytest.mark.parametrize("pushed", PUSHES, ids=str)
def test_what_is_pushed_and_not_acceptable_leaves_in_force_what_was(
    running: asyncio.Runner, one: World, pushed: Pushed
) -> None:
    async def story() -> None:
        mark = one.mark
        await one.authority.push(pushed.make(one.authority))
        line = await one.said(pushed.event, pushed.says, mark)
        if pushed.event == "push-refused":
            assert SENTENCE.fullmatch(line["why"]), line["why"]
        await one.opened()
        assert one.authority.told[-1].claims.policy_epoch == one.authority.epoch
        one.check()

    running.run(story())


@pytest.mark.parametrize("hostile", EVERY, ids=str)
def test_a_hostile_answer_opens_nothing_and_the_sidecar_says_what_is_wrong(
    running: asyncio.Runner, one: World, hostile: Hostile
) -> None:
    async def story() -> None:
        mark = await one.play(hostile.move)
        line = await one.said(hostile.event, hostile.says, mark)
        if hostile.event == "round-failed" and hostile not in AS_TOLD:
            assert SENTENCE.fullmatch(line["why"]), line["why"]
        await one.opened()
        one.check()

    running.run(story())


def test_a_second_answer_under_the_same_number_is_not_even_looked_at(running: asyncio.Runner, one: World) -> None:
    async def story() -> None:
        await one.authority.linked.wait()
        mark = await one.play(moves.twice(moves.contraindicated))
        await one.opened()
        assert not [line for line in one.sidecar.lines[mark:] if line["event"] in ("round-failed", "violation")]
        one.check()

    running.run(story())


def test_a_flood_of_wishes_for_rounds_is_a_few_rounds(running: asyncio.Runner, one: World) -> None:
    async def story() -> None:
        await one.authority.linked.wait()
        before = len(one.authority.told)
        for _ in range(2_000):
            await one.authority.push(AttestNow(one.authority.nonce()))
        await one.opened()
        assert len(one.authority.told) - before < 200
        one.check()

    running.run(story())


async def drift(world: World) -> None:
    """In an open world a file changes; the sidecar closes by itself; the file is put right again."""
    seen = len(world.envoy.lines)
    good = world.page.read_text()
    world.page.write_text("tampered with")
    try:
        await world.closed(seen)
    finally:
        world.page.write_text(good)


async def opened_then_drift(world: World) -> None:
    await world.opened()
    await drift(world)


Step = Callable[[World], Any]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.sampled_from(EVERY).map(lambda hostile: lambda world: world.play(hostile.move)),
    st.builds(moves.flipped, st.floats(0, 1, exclude_max=True), st.integers(0, 7)).map(
        lambda hostile: lambda world: world.play(hostile.move)
    ),
    st.sampled_from(PUSHES).map(lambda pushed: lambda world: world.authority.push(pushed.make(world.authority))),
    st.just(lambda world: world.play(honestly)),
    st.just(lambda world: world.opened()),
    st.just(opened_then_drift),
)


@settings(
    max_examples=10,
    deadline=None,
    database=None,
    print_blob=True,
    phases=(Phase.generate,),  # a world that runs on is no ground for shrinking
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(STEPS, min_size=2, max_size=8))
@pytest.mark.timeout(300)  # a busy machine takes its time over ten stories
def test_honest_and_hostile_moves_in_any_order_open_only_what_was_earned(
    running: asyncio.Runner, one: World, steps: list[Step]
) -> None:
    async def story() -> None:
        for step in steps:
            await step(one)
        await one.opened()
        one.check()

    running.run(story())


def test_an_honest_answer_that_comes_after_a_violation_opens_nothing(running: asyncio.Runner, one: World) -> None:
    async def story() -> None:
        await one.opened()
        await one.authority.linked.wait()
        released = asyncio.Event()
        one.authority.asking.clear()
        held = one.authority.play(moves.held_until(released))
        await one.authority.asking.wait()
        await drift(one)
        mark = one.mark
        released.set()
        await held
        await one.said("result-dropped", "result for generation", mark)
        await one.opened()
        one.check()

    running.run(story())


def alone(folder: Path, story: Callable[[World], Any], freshness: float = 4.0) -> None:
    """A world of its own, for what does not leave it as it was."""

    async def told() -> None:
        async with world(folder, freshness) as made:
            await story(made)

    asyncio.run(told())


def test_an_authority_that_falls_silent_closes_when_the_lease_is_over(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.authority.usual = moves.silent
        seen = len(world.envoy.lines)
        await world.closed(seen)
        line = await world.said("phase", "stale", 0)
        assert line["at"] <= max(given.end for given in world.authority.given.values())

    alone(tmp_path, story, freshness=2.0)


def test_a_newer_policy_that_is_not_understood_loosens_nothing_and_in_the_end_closes(tmp_path: Path) -> None:
    """The authority has gone over to it, and takes no evidence under the one before."""

    async def story(world: World) -> None:
        lax = {**world.authority.spec, "mode": "observe", "leniency": "all"}
        document = world.authority.document(epoch=6, spec=lax)
        stale = Problem(problems.BASE + "policy-epoch-stale", "T", 409, "policy epoch 5", "evidence", "Fetch it.")

        async def refused(_: HostileAuthority, asked: Any) -> None:
            await asked.send(asked.frame(stale))

        def newer(request: Request, honest: Message) -> Message:
            return PolicyChanged(6, document) if isinstance(honest, PolicyChanged) else honest

        world.authority.usual, world.authority.on_ask = refused, newer
        seen, mark = len(world.envoy.lines), world.mark
        line = await world.said("round-failed", "AttestationPolicy.spec.leniency", mark)
        assert "What was in force stays in force. Update this sidecar" in line["why"]
        await world.closed(seen)
        assert {told.claims.policy_epoch for told in world.authority.told} == {5}
        world.authority.usual = honestly
        await world.opened()

    alone(tmp_path, story, freshness=2.0)


def test_a_quarantine_is_believed_and_nothing_but_its_own_release_ends_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        cause = Cause("c-" + "0" * 32, "order", "by order", 1, 0)
        seen = len(world.envoy.lines)
        await world.authority.push(Quarantined(cause))
        await world.closed(seen)
        seen, mark = len(world.envoy.lines), world.mark
        await world.play(honestly)
        await world.said("result-dropped", "tampered with", mark)
        for order in (pushes.order(moves.SOMEBODY, cause.id), pushes.order(None, "c-1"), pushes.order(None)):
            mark = world.mark
            await world.authority.push(Released(order(world.authority)))
            await world.said("result-dropped", "names no cause", mark)
        await world.play(honestly)
        assert all(line["leaf"] is None for line in world.envoy.lines[seen:])
        await world.authority.push(Released(pushes.order(None, cause.id)(world.authority)))
        await world.opened()

    alone(tmp_path, story)


def _policy_with(authority: HostileAuthority, **spec: Any) -> str:
    return authority.document(spec={**authority.spec, **spec})


ENROLMENTS: dict[str, tuple[Callable[[HostileAuthority, Enrolment], Message], str]] = {
    "the authority's own identity": (
        lambda _, good: replace(good, spiffe_id=str(SpiffeId.authority(TRUST_DOMAIN))),
        "the authority gives the identity",
    ),
    "an identity in another trust domain": (
        lambda _, good: replace(good, spiffe_id="spiffe://else.example/web"),
        "the authority gives the identity spiffe://else.example/web",
    ),
    "a policy that is not understood": (
        lambda authority, good: replace(good, policy=_policy_with(authority, leniency="all")),
        "AttestationPolicy.spec.leniency",
    ),
    "a bundle that is none": (lambda _, good: replace(good, bundle="none"), "an enrolment that does not parse"),
    "another kind of answer": (lambda _, __: Done(), "Done where Enrolment belongs"),
    "no version in common": (
        lambda _, __: Problem(
            problems.BASE + "version-unsupported",
            "T",
            400,
            "the sidecar speaks wire 1.0-1.1, this authority 2.0",
            "Proofbeat-Wire",
            "Bring the sidecar up.",
        ),
        "this authority 2.0",
    ),
}


@pytest.mark.parametrize("case", ENROLMENTS)
def test_an_enrolment_that_is_not_believable_ends_the_sidecar_with_one_line(tmp_path: Path, case: str) -> None:
    async def story() -> None:
        make, says = ENROLMENTS[case]
        authority = decent(tmp_path)
        authority.on_enrol = lambda good: make(authority, good)
        async with (
            listening(authority.routes(), reserved(authority.ca)) as url,
            workload() as pid,
            sidecar(tmp_path, url, authority.ca.bundle, pid) as program,
        ):
            assert await program.ended() in (1, 2)
            (line,) = program.other
            assert line.startswith("proofbeat: ")
            assert says in line
            assert SENTENCE.fullmatch(line.strip()), line
            assert not authority.told

    asyncio.run(story())


def test_a_server_without_the_reserved_identity_is_told_nothing_and_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        authority = decent(tmp_path)
        key, now = another_key(), datetime.now(UTC).replace(microsecond=0)
        chain = leaf.sign(
            leaf.Leaf(IDENTITY, moves.SOMEBODY, key.public_key(), 1, now, now + timedelta(hours=1), "ear"), authority.ca
        )
        context = context_of(authorities.key_pem(key) + chain, tmp_path)
        async with (
            listening(authority.routes(), context) as url,
            workload() as pid,
            sidecar(tmp_path, url, authority.ca.bundle, pid) as program,
        ):
            line = await program.heard(lambda line: line["event"] == "enrolment-refused")
            assert f"the server is {IDENTITY}, and not {SpiffeId.authority(TRUST_DOMAIN)}" in line["why"]
            assert SENTENCE.fullmatch(line["why"]), line["why"]
        assert not authority.heard

    asyncio.run(story())


async def _enrol_at(folder: Path, answer: Callable[[web.Request], web.StreamResponse]) -> None:
    ca = made_ca(folder)

    async def handler(request: web.Request) -> web.StreamResponse:
        return answer(request)

    async with listening([web.post("/{any:.*}", handler)], reserved(ca)) as url:
        client = AuthorityClient(Endpoint(url, TRUST_DOMAIN, ca.bundle), lambda _: None, timeout=5.0)
        try:
            await client.enrol(JoinToken("secret"), InstanceId("i-" + "1" * 32), another_key())
        finally:
            await client.close(clean=False)


def test_a_redirect_is_not_followed_whatever_it_leads_to(tmp_path: Path) -> None:
    async def story() -> None:
        heard: list[bytes] = []

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(1000))
            writer.close()

        async with await asyncio.start_server(hear, "127.0.0.1", 0) as elsewhere:
            port = elsewhere.sockets[0].getsockname()[1]
            headers = {"Location": f"http://127.0.0.1:{port}/"}
            with pytest.raises(Unavailable, match="redirect"):
                await _enrol_at(tmp_path, lambda _: web.Response(status=307, headers=headers))
        assert not heard

    asyncio.run(story())


def test_a_compressed_answer_is_not_unpacked(tmp_path: Path) -> None:
    def bomb(_: web.Request) -> web.StreamResponse:
        response = web.Response(body=bytes(64 << 20), content_type="application/cbor")
        response.enable_compression(web.ContentCoding.gzip)
        return response

    with pytest.raises(InvalidInput, match="does not parse"):
        asyncio.run(_enrol_at(tmp_path, bomb))


@pytest.mark.parametrize("version", ["2.0", "1.0-1.1", "nonsense"])
def test_a_version_that_was_not_offered_is_not_taken(tmp_path: Path, version: str) -> None:
    with pytest.raises(InvalidInput):
        asyncio.run(_enrol_at(tmp_path, lambda _: web.Response(headers={"Proofbeat-Wire": version})))
