"""Break-glass at a real sidecar, under an authority that would like to break more glass than operators signed for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.breakglass import Order, Reach, Scope, Signed, to_text
from attestation.keys import SigningKey
from attestation.trust import Tier, TrustVector
from tests.system.hostile.authority import IDENTITY, TRUST_DOMAIN, Asked, HostileAuthority, Move, honestly
from tests.system.hostile.world import Program, World, decent, world
from tests.unit.policies.operators import KEYS, STRANGER, public, rules
from wire.messages import BreakGlass, PolicyChanged

ADA, BOB, CAT = KEYS.values()
NAME = "web"


def order(**changes: Any) -> Order:
    """For the sidecar's registration, from now on for half an hour. lasts: seconds."""
    now = int(time.time())
    said: dict[str, Any] = {
        "trust_domain": TRUST_DOMAIN,
        "scope": Scope(Reach.REGISTRATIONS, (NAME,), (str(IDENTITY),)),
        "issued_at": now,
        "not_before": now,
        "not_after": now + changes.pop("lasts", 1800),
        "reason": "a release that nobody referenced",
        "least_epoch": 1,
        "salt": secrets.token_hex(16),
        **changes,
    }
    return Order(**said)


def signed(*by: SigningKey, **changes: Any) -> Signed:
    document = Signed(order(**changes))
    for key in by or (ADA, BOB):
        document = document.with_signature(key)
    return document


def marked(authority: HostileAuthority, asked: Asked, by: Order) -> None:
    """Whatever was measured is contraindicated, and let through."""
    result = replace(
        authority.result(asked.told),
        status=Tier.CONTRAINDICATED,
        vector=TrustVector(executables=2, file_system=96),
        reasons=("file-modified: /srv/x is not as referenced",),
        break_glass=by.id,
    )
    asked.honest = authority.answer(asked.told, result)


def let_through(by: Order) -> Move:
    """As a decent authority does while such an order is in force."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        marked(authority, asked, by)
        authority.gives(asked)
        await asked.send(asked.frame(asked.honest))

    return move


def lied(by: Order) -> Move:
    """The same without the right to."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        marked(authority, asked, by)
        await asked.send(asked.frame(asked.honest))

    return move


def glass(folder: Path, freshness: float = 4.0) -> HostileAuthority:
    authority = decent(folder, freshness)
    authority.spec["breakGlass"] = rules()
    authority.policy = authority.document()
    return authority


async def excepted(made: World, by: Signed) -> None:
    """Open by this order alone: a file is not as it should be, and Envoy has the certificate that says so."""
    mark, made.authority.orders = made.mark, (to_text(by),)
    await made.authority.push(BreakGlass(made.authority.orders))
    await made.said("break-glass", by.order.id, mark)
    made.authority.usual = let_through(by.order)
    made.page.write_text("not as it should be")
    await made.said("would-have", "file-modified", mark)
    given = len(made.authority.given)
    await made.play(let_through(by.order))
    await made.envoy.heard(lambda line: line["leaf"] in list(made.authority.given)[given:])


async def mended(made: World) -> None:
    made.authority.orders, made.authority.usual = (), honestly
    made.page.write_text("as it should be")
    await made.opened()


@pytest.fixture(scope="module")
def running() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def one(running: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, stack = tmp_path_factory.mktemp("world"), AsyncExitStack()
    made = running.run(stack.enter_async_context(world(folder, authority=glass(folder))))
    yield made
    running.run(mended(made))
    running.run(stack.aclose())


FORGERIES: dict[str, tuple[Callable[[], Signed], str]] = {
    "nobody signed": (lambda: Signed(order()), "and did: nobody"),
    "one operator signed": (lambda: signed(ADA), "and did: ada"),
    "the authority signed in another's place": (lambda: signed(ADA, STRANGER), "and did: ada"),
    "the signatures of another order": (lambda: replace(signed(), order=order(lasts=3000)), "and did: nobody"),
    "too long": (lambda: signed(lasts=3601), "where 1h is the longest"),
    "another mesh": (lambda: signed(trust_domain="else.example", scope=Scope(Reach.MESH)), "for the trust domain"),
    "another registration": (
        lambda: signed(scope=Scope(Reach.REGISTRATIONS, ("db",), (str(IDENTITY),))),
        "it is for registrations db",
    ),
    "another identity of that name": (
        lambda: signed(scope=Scope(Reach.REGISTRATIONS, (NAME,), (f"spiffe://{TRUST_DOMAIN}/db",))),
        "it is for registrations web",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_order_opens_nothing_and_the_sidecar_says_what_is_wrong(
    running: asyncio.Runner, one: World, name: str
) -> None:
    async def story() -> None:
        await mended(one)
        make, says = FORGERIES[name]
        forged = make()
        by, text = forged.order, to_text(forged)
        mark, seen = one.mark, len(one.envoy.lines)
        one.authority.orders, one.authority.usual = (text,), lied(by)
        await one.authority.push(BreakGlass((text,)))
        assert by.id in (await one.said("push-refused", says, mark))["why"]
        await one.play(lied(by))
        await one.closed(seen)
        await one.play(lied(by))
        assert one.envoy.lines[-1]["leaf"] is None
        one.check()

    running.run(story())


def test_an_authority_that_lets_through_by_an_order_that_it_does_not_show_opens_nothing(
    running: asyncio.Runner, one: World
) -> None:
    async def story() -> None:
        await mended(one)
        seen = len(one.envoy.lines)
        one.authority.usual = lied(order())
        await one.play(lied(order()))
        await one.closed(seen)
        one.check()

    running.run(story())


def test_while_an_order_is_in_force_drift_closes_nothing_and_its_end_closes_at_once(
    running: asyncio.Runner, one: World
) -> None:
    async def story() -> None:
        await mended(one)
        seen, mark, by = len(one.envoy.lines), one.mark, signed()
        await excepted(one, by)
        assert all(line["leaf"] for line in one.envoy.lines[seen:])
        await one.authority.push(BreakGlass(()))
        await one.closed(seen)
        assert (await one.said("phase", "quarantined", mark))["phase"] == "quarantined"
        one.authority.usual = lied(by.order)
        # The order was good, and is over: telling it again helps nobody.
        await one.authority.push(BreakGlass((to_text(by),)))
        await one.play(lied(by.order))
        assert one.envoy.lines[-1]["leaf"] is None
        await mended(one)
        one.check()

    running.run(story())


def test_an_order_ends_by_itself_whatever_the_authority_goes_on_to_give(running: asyncio.Runner, one: World) -> None:
    async def story() -> None:
        await mended(one)
        seen, by = len(one.envoy.lines), signed(lasts=3)
        await excepted(one, by)
        await one.closed(seen)
        assert 0 <= time.time() - by.order.not_after < 1
        await one.play(lied(by.order))
        assert one.envoy.lines[-1]["leaf"] is None
        one.check()

    running.run(story())


def test_a_foreign_program_closes_in_spite_of_every_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, authority=glass(tmp_path)) as made:
            by = signed()
            await excepted(made, by)
            seen, mark = len(made.envoy.lines), made.mark
            pid = yaml.safe_load((tmp_path / "sidecar.yaml").read_text())["workload"]["pid"]
            async with traced(pid):
                await made.said("violation", "process-tracer", mark)
                await made.closed(seen)
            await made.play(lied(by.order))
            assert made.envoy.lines[-1]["leaf"] is None

    asyncio.run(story())


@asynccontextmanager
async def traced(pid: int) -> AsyncIterator[None]:
    """Somebody has attached to the workload's process (PTRACE_SEIZE)."""
    code = f"import ctypes, sys; assert ctypes.CDLL(None).ptrace(0x4206, {pid}, 0, 0) == 0; sys.stdin.read()"
    process = await asyncio.create_subprocess_exec("python3", "-c", code, stdin=asyncio.subprocess.PIPE)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0


def test_a_policy_without_one_of_its_operators_closes(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, authority=glass(tmp_path)) as made:
            by = signed()
            await excepted(made, by)
            seen = len(made.envoy.lines)
            made.authority.spec["breakGlass"] = rules("bob", "cat")
            made.authority.epoch += 1
            made.authority.policy = made.authority.document()
            await made.authority.push(PolicyChanged(made.authority.epoch, made.authority.policy))
            await made.closed(seen)

    asyncio.run(story())


def test_what_has_ended_stays_so_over_kill_9(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, authority=glass(tmp_path)) as made:
            by = signed()
            await excepted(made, by)
            seen = len(made.envoy.lines)
            await made.authority.push(BreakGlass(()))
            await made.closed(seen)
            made.authority.usual = lied(by.order)
            made.sidecar.process.kill()
            await made.sidecar.ended()
            again = await _again(tmp_path)
            try:
                await again.heard(lambda line: line["event"] == "enrolled")
                made.sidecar = again
                await made.authority.linked.wait()
                await made.authority.push(BreakGlass((to_text(by),)))
                mark = await made.play(lied(by.order))
                await made.said("phase", "quarantined", mark)
                assert not any(line["event"] == "excepted" for line in again.lines)
            finally:
                await again.end()

    asyncio.run(story())


def test_an_order_that_stands_is_believed_again_after_kill_9(tmp_path: Path) -> None:
    async def story() -> None:
        # With time for the other run: the Envoy of the first has nobody to close it here.
        async with world(tmp_path, authority=glass(tmp_path, freshness=60.0)) as made:
            by = signed()
            await excepted(made, by)
            made.sidecar.process.kill()
            await made.sidecar.ended()
            again = await _again(tmp_path)
            try:
                await again.heard(lambda line: line["event"] == "excepted" and line["open_by_break_glass"])
            finally:
                await again.end()

    asyncio.run(story())


async def _again(folder: Path) -> Program:
    return await Program.start("-P", "-m", "proofbeat", "sidecar", "-c", str(folder / "sidecar.yaml"), stream="stderr")


def test_an_authority_that_makes_up_operators_does_not_get_past_the_sidecars_own(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "operators.yaml").write_text(yaml.safe_dump(rules("bob", "cat")))
        authority = glass(tmp_path)
        made_up = {"operators": [{"name": each, "key": public(key)} for each, key in (("x", ADA), ("y", STRANGER))]}
        authority.spec["breakGlass"] = made_up
        authority.policy = authority.document()
        async with world(tmp_path, authority=authority, operators=str(tmp_path / "operators.yaml")) as made:
            by = signed(ADA, STRANGER)
            seen, mark = len(made.envoy.lines), made.mark
            authority.orders, authority.usual = (to_text(by),), lied(by.order)
            await made.said("push-refused", "by this sidecar's own settings", mark)
            await made.closed(seen)

    asyncio.run(story())
