"""Break-glass at a real authority: what it opens, who can ask for it, what ends it, and how it may not be abused."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from attestation import breakglass
from attestation.breakglass import Reach, Scope, Signed, from_text, to_text
from attestation.errors import InvalidInput
from attestation.trust import Tier
from attestation.violation import ViolationClass
from tests.system.authority.glass import ADA, API, BOB, CAT, WEB, glass_policies, order, signed
from tests.system.authority.town import (
    BAD,
    GOOD,
    MAIN,
    PYTHON,
    RUNTIME,
    TRUST_DOMAIN,
    Attester,
    Clock,
    Town,
    attester,
    holding,
    measured,
    played,
    policies,
    refusal,
    stranger,
    town,
)
from tests.unit.policies.operators import KEYS
from wire.messages import Answer, AttestNow, BreakGlass, Denials, Push, Report
from wire.session import Ticket

Pushed = TypeVar("Pushed", bound=Push)
STRANGER = ed25519.Ed25519PrivateKey.generate()


def drifted(one: Attester) -> Attester:
    one.layers = measured(content=BAD)
    return one


def tampered(one: Attester) -> Attester:
    one.layers = measured(content=BAD, runtime=BAD)
    return one


def leaf_of(answer: Answer) -> x509.Certificate:
    return x509.load_pem_x509_certificates(answer.chain.encode())[0]


async def fresh_round(one: Attester) -> Answer:
    one.nonce = await one.client.challenge()
    return await one.round()


async def pushed(one: Attester, shape: type[Pushed]) -> Pushed:
    """The next push of this kind."""
    while True:
        push = await asyncio.wait_for(one.pushed.get(), 10)
        if isinstance(push, shape):
            return push


async def told(one: Attester, awaited: int) -> None:
    """Until a push names so many orders."""
    while len((await pushed(one, BreakGlass)).orders) != awaited:
        pass


async def state(where: Town, one: Attester) -> str:
    return (await where.authority.instance(one.instance)).state.value


def with_glass(folder: Path, story: Callable[[Town, Attester], Awaitable[None]], rules: str | None = None) -> None:
    played(folder, story, rules=rules or glass_policies())


# --- what it opens ---


def test_drift_is_let_through_and_marked_in_result_certificate_state_and_history(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert (await drifted(one).round()).chain == ""
        applied = await where.authority.break_glass(signed())
        answer = await fresh_round(one)
        result = one.result(answer)
        assert (result.status, result.break_glass) == (Tier.CONTRAINDICATED, applied.order.id)
        assert breakglass.marked(leaf_of(answer)) == applied.order.id
        assert [from_text(each).order for each in answer.break_glass] == [applied.order]
        assert await state(where, one) == "break-glass"
        why = await where.authority.why("web")
        assert why.open and applied.order.id in why.answer and "file-modified" in why.answer
        assert where.authority.denials().denied == ()

    with_glass(tmp_path, story)


def test_no_lease_outlives_the_order(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        applied = await where.authority.break_glass(signed(lasts=20))
        answer = await drifted(one).round()
        assert answer.chain and answer.issued_ms + answer.lease_ms == applied.order.not_after * 1000
        assert leaf_of(answer).not_valid_after_utc.timestamp() == applied.order.not_after

    with_glass(tmp_path, story)


def test_what_is_affirmed_is_not_marked(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed(lasts=20))
        answer = await one.round()
        assert one.result(answer).break_glass == breakglass.marked(leaf_of(answer)) == ""
        assert answer.lease_ms == 60_000
        assert await state(where, one) == "fresh"

    with_glass(tmp_path, story)


def test_a_tamper_closes_all_the_same_and_peers_refuse_what_the_order_let_through(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed())
        marked = leaf_of(await drifted(one).round())
        assert (await tampered(one).round()).chain == ""
        assert (await where.authority.instance(one.instance)).quarantined
        (denied,) = (await pushed(one, Denials)).denied
        assert marked.fingerprint(hashes.SHA256()).hex() in {leaf.fingerprint for leaf in denied.leaves}
        assert (await refusal(fresh_round(one))).kind == "instance-quarantined"

    with_glass(tmp_path, story)


def test_a_report_of_drift_changes_no_state_while_the_order_waives_it(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.round()
        await where.authority.break_glass(signed())
        drift = Report(1, ViolationClass.DRIFT, "a file was modified", 1_700_000_000_000, "file-modified")
        await one.client.report(drift)
        assert await state(where, one) == "fresh"
        await one.client.report(replace(drift, generation=2, kind="collector-dead"))
        assert await state(where, one) == "quarantined"

    with_glass(tmp_path, story)


def test_only_those_in_its_scope_are_let_through(tmp_path: Path) -> None:
    async def story(where: Town, web: Attester) -> None:
        async with attester(where, 2, registration="api") as api:
            await where.authority.break_glass(signed())
            assert (await drifted(web).round()).chain and not (await drifted(api).round()).chain
            await where.authority.break_glass(signed(scope=Scope(Reach.INSTANCE, (api.instance.value,), (API,))))
            assert (await fresh_round(api)).chain

    with_glass(tmp_path, story)


def test_one_instance_is_let_through_and_its_neighbour_is_not(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        async with attester(where, 2) as other:
            await where.authority.break_glass(signed(scope=Scope(Reach.INSTANCE, (one.instance.value,), (WEB,))))
            assert (await drifted(one).round()).chain and not (await drifted(other).round()).chain

    with_glass(tmp_path, story)


# --- at the command line ---


async def proofbeat(folder: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "proofbeat", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def test_operators_break_and_mend_it_with_commands_and_everybody_sees_it(tmp_path: Path) -> None:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for name, key in KEYS.items():
        (tmp_path / f"{name}.pem").write_bytes(key.private_bytes(*form))
    admin = ("--admin", "admin.sock")

    async def glass(*arguments: str) -> tuple[int, str]:
        return await proofbeat(tmp_path, "breakglass", *arguments)

    async def story(where: Town, one: Attester) -> None:
        await drifted(one).round()
        wish = ("--scope", "web", "--for", "30m", "--reason", "a bad release")
        code, said = await glass(*wish, *admin, "-o", "order.json")
        assert code == 0, said
        identity = from_text((tmp_path / "order.json").read_text()).order.id
        code, said = await glass("apply", *admin, "order.json")
        assert code == 1 and "and did: nobody" in said
        for name in ("ada", "bob"):
            assert (await glass("sign", "--yes", "--key", f"{name}.pem", "order.json"))[0] == 0
        code, said = await glass("apply", *admin, "order.json")
        assert code == 0 and "web: in force, signed by ada, bob" in said
        await fresh_round(one)
        code, said = await proofbeat(tmp_path, "status", *admin)
        assert code == 1 and "break-glass" in said
        assert f"GLASS IS BROKEN: {identity}" in said and "signed by ada, bob: a bad release" in said
        code, said = await proofbeat(tmp_path, "status", *admin, "--json")
        assert json.loads(said)["breakglass"][0]["id"] == identity
        code, said = await proofbeat(tmp_path, "why", *admin, "web")
        assert f"let through by {identity}" in said
        assert identity in (await glass("list", *admin))[1]
        code, said = await glass("end", *admin, identity, "--reason", "it is mended")
        assert code == 0 and "has ended" in said
        assert (await glass("list", *admin))[1] == "no glass is broken\n"
        (ended,) = json.loads((await glass("list", *admin, "--all", "--json"))[1])["orders"]
        assert (ended["standing"], ended["ended"]) == ("ended", "it is mended")
        code, said = await glass("end", *admin, identity)
        assert code == 1 and "no order of this id stands" in said
        code, said = await glass("apply", *admin, "order.json")
        assert code == 1 and "it was applied before, and has ended: it is mended" in said

    with_glass(tmp_path, story)


# --- who can ask for it ---


def lent(text: str) -> str:
    """ada's signature, once more under bob's name."""
    document = json.loads(text)
    (first, second) = document["signatures"]
    document["signatures"] = [first, {**first, "header": second["header"]}]
    return json.dumps(document)


def moved(text: str, **changes: Any) -> str:
    """The signatures of one order under another."""
    before = from_text(text)
    return to_text(Signed(replace(before.order, **changes), before.signatures))


MESH = Scope(Reach.MESH)
FORGERIES: dict[str, tuple[Callable[[], str], str]] = {
    "too few": (lambda: signed(ADA), "2 operators must sign, and did: ada"),
    "nobody": (lambda: to_text(Signed(order())), "and did: nobody"),
    "one operator twice": (lambda: lent(signed(ADA, BOB)), "did: ada"),
    "a key that no policy names": (lambda: signed(ADA, STRANGER), "did: ada"),
    "signed for another scope": (lambda: moved(signed(), scope=MESH), "and did: nobody"),
    "signed for another time": (lambda: moved(signed(), not_after=int(time.time()) + 3000), "and did: nobody"),
    "signed for another trust domain": (lambda: moved(signed(trust_domain="a.example", scope=MESH)), "a.example"),
    "longer than policy allows": (lambda: signed(lasts=3601), "where 1h is the longest"),
    "of another trust domain": (lambda: signed(trust_domain="b.example", scope=MESH), "the trust domain b.example"),
    "for an identity that the name does not have": (
        lambda: signed(scope=Scope(Reach.REGISTRATIONS, ("web",), (API,))),
        "nobody here is in its scope",
    ),
    "for policies to come": (lambda: signed(least_epoch=2), "from epoch 2 on"),
    "over": (lambda: signed(ahead=-3600), "it was over"),
    "made in the future": (lambda: signed(issued_at=int(time.time()) + 60, ahead=60), "one of two clocks is wrong"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_an_order_that_does_not_hold_is_refused_and_opens_nothing(tmp_path: Path, name: str) -> None:
    async def story(where: Town, one: Attester) -> None:
        make, complaint = FORGERIES[name]
        refused = await refusal(where.authority.break_glass(make()))
        assert refused.kind == "break-glass-void" and complaint in refused.sentence
        answer = await drifted(one).round()
        assert (answer.chain, answer.break_glass, one.result(answer).break_glass) == ("", (), "")
        assert (await where.authority.broken()).orders == ()

    with_glass(tmp_path, story)


@pytest.mark.parametrize("ahead", [86_401, 400 * 86_400])
def test_an_order_for_the_far_future_is_none(tmp_path: Path, ahead: int) -> None:
    async def story(where: Town, _: Attester) -> None:
        with pytest.raises(InvalidInput, match="more than 24 h after it was made"):
            await where.authority.break_glass(signed(ahead=ahead))

    with_glass(tmp_path, story)


def test_where_no_policy_names_an_operator_nobody_can(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        refused = await refusal(where.authority.break_glass(signed()))
        assert "no policy names an operator" in refused.sentence
        assert (await drifted(one).round()).chain == ""

    with_glass(tmp_path, story, policies())


def test_where_nothing_closes_nothing_is_marked_and_an_order_is_told_as_ever(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed())
        answer = await drifted(one).round()
        assert answer.chain and one.result(answer).break_glass == ""
        assert len(answer.break_glass) == 1

    with_glass(tmp_path, story, glass_policies(mode="audit"))


def test_an_order_holds_for_whoever_permits_it_and_says_for_whom_it_does_not(tmp_path: Path) -> None:
    floor = """---
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: no-glass-for-api}
spec: {selector: {registrations: [api]}, breakGlass: {operators: []}}
"""

    async def story(where: Town, web: Attester) -> None:
        applied = await where.authority.break_glass(signed(scope=MESH))
        assert {name: bool(held) for name, held in applied.held.items()} == {"web": True, "api": False}
        async with attester(where, 2, registration="api") as api:
            assert (await drifted(web).round()).chain and not (await drifted(api).round()).chain

    with_glass(tmp_path, story, glass_policies() + floor)


# --- what ends it ---


def test_its_end_is_told_at_once_and_nothing_is_let_through_any_more(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        applied = await where.authority.break_glass(signed())
        await told(one, 1)
        await drifted(one).round()
        await where.authority.end_break_glass(applied.order.id, "it is mended")
        await told(one, 0)
        assert isinstance(await one.pushed.get(), AttestNow)
        assert await state(where, one) == "stale"
        assert (await fresh_round(one)).chain == ""

    with_glass(tmp_path, story)


def test_it_ends_by_itself(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed(lasts=600))
        await told(one, 1)
        assert (await drifted(one).round()).chain
        where.clock.ahead += 601
        await told(one, 0)
        assert (await fresh_round(one)).chain == ""
        (kept,) = (await where.authority.broken()).orders
        assert kept.ended == "its time is over"

    with_glass(tmp_path, story)


def test_it_begins_by_itself(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed(ahead=600))
        assert (await drifted(one).round()).chain == ""
        where.clock.ahead += 601
        await told(one, 1)
        assert (await fresh_round(one)).chain

    with_glass(tmp_path, story)


def test_the_same_evidence_again_after_the_end_brings_no_certificate(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        applied = await where.authority.break_glass(signed())
        evidence = drifted(one).signed()
        assert (await one.send(evidence)).chain
        assert (await one.send(evidence)).chain
        await where.authority.end_break_glass(applied.order.id, "it is mended")
        assert (await one.send(evidence)).chain == ""

    with_glass(tmp_path, story)


@pytest.mark.parametrize("restart", [False, True])
def test_an_order_that_has_ended_never_comes_back(tmp_path: Path, restart: bool) -> None:
    text = signed()

    async def whole() -> None:
        async with town(tmp_path, rules=glass_policies()) as where, attester(where) as one:
            applied = await where.authority.break_glass(text)
            await where.authority.end_break_glass(applied.order.id, "it is mended")
            if not restart:
                await replayed(where, one)
                return
            ticket = Ticket(one.known.ticket)
        async with town(tmp_path) as where:
            again = stranger(where)
            await again.enrol(ticket)
            async with holding(again):
                await replayed(where, again)

    async def replayed(where: Town, one: Attester) -> None:
        more = to_text(from_text(text).with_signature(CAT))
        for each in (text, more):
            refused = await refusal(where.authority.break_glass(each))
            assert "has ended: it is mended" in refused.sentence
        assert (await drifted(one).round()).chain == ""

    asyncio.run(whole())


def test_an_order_stands_over_a_restart_and_ends_when_it_would_have(tmp_path: Path) -> None:
    clock = Clock()

    async def whole() -> None:
        async with town(tmp_path, rules=glass_policies(), clock=clock) as where, attester(where) as one:
            await where.authority.break_glass(signed(lasts=600))
            ticket = Ticket(one.known.ticket)
        async with town(tmp_path, clock=clock) as where:
            again = drifted(stranger(where))
            await again.enrol(ticket)
            async with holding(again):
                await told(again, 1)
                assert (await again.round()).chain
        clock.ahead += 601
        async with town(tmp_path, clock=clock) as where:
            (kept,) = (await where.authority.broken()).orders
            assert kept.ended == "its time is over"

    asyncio.run(whole())


def test_an_operator_who_leaves_the_policy_ends_it_for_good(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        text = signed()
        await where.authority.break_glass(text)
        assert (await drifted(one).round()).chain
        (where.folder / "policies.yaml").write_text(glass_policies("bob", "cat"))
        await where.authority.reload_policies()
        await told(one, 0)
        (where.folder / "policies.yaml").write_text(glass_policies())
        await where.authority.reload_policies()
        assert (
            "does not hold for web any more: 2 operators must sign, and did: bob"
            in (await refusal(where.authority.break_glass(text))).sentence
        )
        (kept,) = (await where.authority.broken()).orders
        assert kept.ended_ms

    with_glass(tmp_path, story)


def test_a_name_that_comes_to_mean_another_identity_ends_it(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed())
        swapped = glass_policies().replace("town.example/web", "town.example/other").replace("/api,", "/web,")
        (where.folder / "policies.yaml").write_text(swapped)
        await where.authority.reload_policies()
        (kept,) = (await where.authority.broken()).orders
        assert kept.ended == "it does not hold for web any more: it is not in scope any more"

    with_glass(tmp_path, story)


def test_a_registration_that_comes_later_under_a_name_in_scope_is_not_let_through(tmp_path: Path) -> None:
    scope = Scope(Reach.NAMESPACE, ("default",), (API, WEB))

    async def story(where: Town, one: Attester) -> None:
        await where.authority.break_glass(signed(scope=scope))
        late = glass_policies().replace("name: api", "name: later")
        (where.folder / "policies.yaml").write_text(late)
        await where.authority.reload_policies()
        async with attester(where, 2, registration="later") as other:
            assert (await drifted(other).round()).chain == ""

    with_glass(tmp_path, story)


@pytest.mark.parametrize("restart", [False, True])
def test_a_clock_that_goes_back_ends_it(tmp_path: Path, restart: bool) -> None:
    clock = Clock()

    async def whole() -> None:
        async with town(tmp_path, rules=glass_policies(), clock=clock) as where, attester(where) as one:
            await where.authority.break_glass(signed())
            assert (await drifted(one).round()).chain
            clock.ahead -= 300
            if not restart:
                await told(one, 1)
                await told(one, 0)
                await ended(where)
                return
        async with town(tmp_path, clock=clock) as where:
            await ended(where)

    async def ended(where: Town) -> None:
        (kept,) = (await where.authority.broken()).orders
        assert kept.ended.startswith("the clock went back by")

    asyncio.run(whole())


# --- what one namespace can do to the others ---

SHOP = f"spiffe://{TRUST_DOMAIN}/shop"
SHOPS = f"""---
kind: ReferenceValues
metadata: {{name: web, namespace: shop}}
spec:
  files: {{{MAIN}: {{digests: [{GOOD}]}}}}
  executables: {{{PYTHON}: [{RUNTIME}]}}
---
kind: WorkloadRegistration
metadata: {{name: web, namespace: shop}}
spec: {{spiffeId: {SHOP}, references: web}}
"""
FORBIDS = """---
kind: AttestationPolicy
metadata: {name: no-glass, namespace: shop}
spec: {breakGlass: {operators: []}}
"""


def mesh_policies(more: str = "") -> str:
    """A floor that names the operators, and another namespace besides. more: its documents."""
    floor = glass_policies().replace("{name: hardened}", "{name: hardened, namespace: proofbeat-system}")
    return floor + SHOPS + more


async def ruled_by(where: Town, policies: str) -> None:
    (where.folder / "policies.yaml").write_text(policies)
    await where.authority.reload_policies()


def test_a_namespace_that_forbids_it_ends_it_for_itself_alone_and_for_good(tmp_path: Path) -> None:
    text = signed(scope=MESH)

    async def whole() -> None:
        async with (
            town(tmp_path, rules=mesh_policies()) as where,
            attester(where) as web,
            attester(where, 2, registration="shop/web") as shop,
        ):
            applied = await where.authority.break_glass(text)
            assert (await drifted(web).round()).chain and (await drifted(shop).round()).chain
            await ruled_by(where, mesh_policies(FORBIDS))
            await told(shop, 1)
            await told(shop, 0)
            assert await state(where, shop) == "stale" and await state(where, web) == "break-glass"
            await ruled_by(where, mesh_policies())
            shop.enrolment = replace(shop.known, policy_epoch=3)
            assert (await fresh_round(shop)).chain == ""
            web.enrolment = replace(web.known, policy_epoch=3)
            assert (await fresh_round(web)).chain
            again = await where.authority.break_glass(text)
            assert {name: bool(held) for name, held in again.held.items()} == {
                "web": True,
                "api": True,
                "shop/web": False,
            }
            (kept,) = (await where.authority.broken()).orders
            assert (kept.id, kept.standing, kept.registrations) == (applied.order.id, "in force", ("api", "web"))
        async with town(tmp_path) as where:
            (kept,) = (await where.authority.broken()).orders
            assert (kept.standing, kept.registrations) == ("in force", ("api", "web"))
            ((name, why),) = [(each.registration, each.why) for each in kept.withdrawn]
            assert (name, why) == ("shop/web", "no policy names an operator who may break the glass")

    asyncio.run(whole())


def test_a_namespace_whose_registration_goes_ends_it_for_that_one_alone(tmp_path: Path) -> None:
    async def story(where: Town, web: Attester) -> None:
        await where.authority.break_glass(signed(scope=MESH))
        async with attester(where, 2, registration="shop/web") as shop:
            await told(shop, 1)
            await ruled_by(where, mesh_policies().replace(SHOPS, ""))
            await told(shop, 0)
            await ruled_by(where, mesh_policies())
            shop.enrolment = replace(shop.known, policy_epoch=3)
            assert (await fresh_round(drifted(shop))).chain == ""
        ((lost,),) = [each.withdrawn for each in (await where.authority.broken()).orders]
        assert (lost.registration, lost.why) == ("shop/web", "nothing rules it any more")
        web.enrolment = replace(web.known, policy_epoch=3)
        assert (await fresh_round(drifted(web))).chain

    with_glass(tmp_path, story, mesh_policies())


def test_it_ends_wholly_where_it_holds_for_nobody_any_more(tmp_path: Path) -> None:
    async def story(where: Town, _: Attester) -> None:
        await where.authority.break_glass(signed(scope=MESH))
        await ruled_by(where, mesh_policies(FORBIDS))
        assert (await where.authority.broken()).orders[0].standing == "in force"
        await ruled_by(where, policies() + SHOPS)
        (kept,) = (await where.authority.broken()).orders
        assert kept.ended == "it does not hold for api any more: no policy names an operator who may break the glass"

    with_glass(tmp_path, story, mesh_policies())


def test_an_operator_ends_it_for_some_of_those_for_whom_it_stands(tmp_path: Path) -> None:
    async def story(where: Town, web: Attester) -> None:
        identity = (await where.authority.break_glass(signed(scope=MESH))).order.id
        code, said = await proofbeat(
            tmp_path, "breakglass", "end", "--admin", "admin.sock", identity, "--registration", "shop/web"
        )
        assert code == 0 and f"{identity} has ended for shop/web" in said
        code, said = await proofbeat(
            tmp_path, "breakglass", "end", "--admin", "admin.sock", identity, "--registration", "shop/web"
        )
        assert code == 1 and "it does not stand for shop/web. It stands for api, web." in said
        code, said = await proofbeat(tmp_path, "breakglass", "list", "--admin", "admin.sock")
        assert "for mesh (api, web; no longer for shop/web: an operator ended it)" in said
        evidence = drifted(web).signed()
        assert (await web.send(evidence)).chain
        await where.authority.end_break_glass(identity, "it is mended here", ["web"])
        assert (await web.send(evidence)).chain == ""
        await where.authority.end_break_glass(identity, "it is mended", ["api"])
        assert (await where.authority.broken()).orders[0].ended == "it is mended"

    with_glass(tmp_path, story, mesh_policies())
