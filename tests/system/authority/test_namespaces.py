"""One namespace's documents at a real authority: whatever is wrong with them is wrong for that namespace alone."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.errors import InvalidConfiguration
from attestation.trust import Tier
from attestation.violation import ViolationClass
from tests.system.authority.town import (
    GOOD,
    MAIN,
    PYTHON,
    RUNTIME,
    TRUST_DOMAIN,
    Attester,
    Town,
    attester,
    policies,
    refusal,
    town,
)
from wire.messages import Denials, Report

REFERENCES = f"""---
kind: ReferenceValues
metadata: {{name: web, namespace: shop}}
spec:
  files: {{{MAIN}: {{digests: [{GOOD}]}}}}
  executables: {{{PYTHON}: [{RUNTIME}]}}
"""
REGISTRATION = f"""---
kind: WorkloadRegistration
metadata: {{name: web, namespace: shop}}
spec: {{spiffeId: spiffe://{TRUST_DOMAIN}/shop, references: web}}
"""
RULE = "{{rules: {{one: {{that: files.count > {at_least}, message: m}}}}}}"
FLOOR = (
    policies()
    .replace("{name: hardened}", "{name: hardened, namespace: proofbeat-system}")
    .replace("  files: {include", "  rules: {one: {that: files.count > 0, message: m}}\n  files: {include", 1)
)


def policy(spec: str, name: str = "own", namespace: str = "shop") -> str:
    return f"---\nkind: AttestationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"


def meshed(*shop: str, floor: str = FLOOR) -> str:
    """Two registrations of the default namespace, one of `shop`, and what that namespace says besides."""
    return "".join((floor, REFERENCES, REGISTRATION, *shop))


FAULTS = {
    "a rule of the floor's name": policy(RULE.format(at_least=1)),
    "two rules of one name": policy(RULE.format(at_least=2), "one") + policy(RULE.format(at_least=3), "two"),
    "a rule that cannot be run": policy("{rules: {two: {that: files.cuont > 1, message: m}}}"),
    "halves that do not fit": policy("{freshness: 11s}"),
    "a misspelt field": policy("{freshnes: 60s}"),
    "no known kind": "---\nkind: AttestationPolcy\nmetadata: {name: own, namespace: shop}\n",
    "a document twice": policy("{deadman: 4s}") * 2,
    "reference values twice": REFERENCES,
    "a registration twice": REGISTRATION,
    "another namespace's identity": REGISTRATION.replace("name: web", "name: thief").replace("/shop,", "/web,"),
}


async def fails(where: Town, registration: str) -> bool:
    refused = await refusal(where.authority.create_token(registration))
    return refused.kind == "registration-unruled"


async def judged(one: Attester, epoch: int) -> Tier:
    """What comes of another round, under the policies of this epoch."""
    told = await one.client.policy()
    assert told.epoch == epoch
    one.nonce = await one.client.challenge()
    one.enrolment = replace(one.known, policy_epoch=epoch)
    return one.result(await one.round()).status


@pytest.mark.parametrize("wrong", FAULTS)
def test_what_is_wrong_with_one_namespaces_documents_is_wrong_for_that_one_alone(tmp_path: Path, wrong: str) -> None:
    victim = "shop/thief" if wrong.startswith("another") else "shop/web"

    async def story() -> None:
        async with town(tmp_path, rules=meshed()) as where, attester(where) as web:
            (tmp_path / "policies.yaml").write_text(meshed(FAULTS[wrong], floor=FLOOR.replace("60s", "50s")))
            assert await where.authority.reload_policies() == 2
            assert await judged(web, 2) is Tier.AFFIRMING
            assert (await where.authority.ruling("web")).policy.spec.freshness == 50
            assert await fails(where, victim)
            assert {name for each in where.authority.faults().faults for name in each.without_identity} == {victim}
            (tmp_path / "policies.yaml").write_text(meshed())
            assert await where.authority.reload_policies() == 3
            assert await where.authority.create_token("shop/web")
            assert where.authority.faults().faults == ()

    asyncio.run(story())


@pytest.mark.parametrize("wrong", FAULTS)
def test_an_authority_starts_with_it_just_as_well(tmp_path: Path, wrong: str) -> None:
    victim = "shop/thief" if wrong.startswith("another") else "shop/web"

    async def story() -> None:
        async with town(tmp_path, rules=meshed()):
            pass
        async with town(tmp_path, rules=meshed(FAULTS[wrong])) as where:
            assert await fails(where, victim)
            async with attester(where) as web:
                assert web.result(await web.round()).status is Tier.AFFIRMING

    asyncio.run(story())


def test_who_is_left_without_rules_gets_no_lease_any_more_and_its_tamper_is_not_forgotten(tmp_path: Path) -> None:
    tamper = Report(1, ViolationClass.TAMPER, "a foreign program ran", 1_700_000_000_000, "execution-foreign")

    async def story() -> None:
        async with town(tmp_path, rules=meshed()) as where, attester(where, registration="shop/web") as shop:
            assert (await shop.round()).chain
            (tmp_path / "policies.yaml").write_text(meshed(FAULTS["a misspelt field"]))
            await where.authority.reload_policies()
            assert (await refusal(shop.round())).kind == "registration-unruled"
            assert (await shop.client.report(tamper)).quarantined
            async with asyncio.timeout(10):
                while not isinstance(push := await shop.pushed.get(), Denials):
                    pass
            assert [each.instance for each in push.denied] == [shop.instance]
            (tmp_path / "policies.yaml").write_text(meshed())
            await where.authority.reload_policies()
            shop.nonce = await shop.client.challenge()
            assert (await refusal(shop.round())).kind == "instance-quarantined"

    asyncio.run(story())


ROOTS = {
    "a floor with a misspelt field": policy("{freshnes: 60s}", "more", "proofbeat-system"),
    "floors that do not merge": policy(RULE.format(at_least=5), "more", "proofbeat-system"),
    "floors whose halves do not fit": policy("{freshness: 11s}", "more", "proofbeat-system"),
    "a document of which nobody can tell whose it is": "---\nkind: AttestationPolicy\nmetadata: {nmaespace: x}\n",
    "no YAML": "---\na: [\n",
}


@pytest.mark.parametrize("wrong", ROOTS)
def test_what_is_wrong_for_everybody_changes_nothing_and_takes_no_epoch(tmp_path: Path, wrong: str) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=meshed()) as where, attester(where, registration="shop/web") as shop:
            (tmp_path / "policies.yaml").write_text(meshed(ROOTS[wrong]))
            with pytest.raises(InvalidConfiguration, match=r"policies\.yaml:\d+:\d+"):
                await where.authority.reload_policies()
            assert await judged(shop, 1) is Tier.AFFIRMING
            (tmp_path / "policies.yaml").write_text(meshed(policy("{deadman: 4s}")))
            assert await where.authority.reload_policies() == 2

    asyncio.run(story())


def test_an_identity_stays_whose_it_was_over_a_restart_whoever_else_registers_it_before(tmp_path: Path) -> None:
    """Files are read in the sequence of their names, and the thief's is read first."""
    thief = REGISTRATION.replace("namespace: shop", "namespace: evil").replace("/shop,", "/web,")
    stolen = thief + REFERENCES.replace("namespace: shop", "namespace: evil") + "---" + meshed()

    async def story() -> None:
        async with town(tmp_path, rules=meshed()) as where, attester(where) as web:
            (tmp_path / "policies.yaml").write_text(stolen)
            await where.authority.reload_policies()
            assert await judged(web, 2) is Tier.AFFIRMING
            assert await fails(where, "evil/web")
        async with town(tmp_path) as where:
            assert await fails(where, "evil/web") and await where.authority.create_token("web")
            # Nor when the owner's document cannot be read for a while.
            unread = stolen.replace("metadata: {name: web}\nspec: {spiffeId", "metadata: {name: web}\nspec: {spifeId")
            (tmp_path / "policies.yaml").write_text(unread)
            await where.authority.reload_policies()
            assert await fails(where, "evil/web") and await fails(where, "web")
        (tmp_path / "authority.sqlite").unlink()
        async with town(tmp_path, rules=stolen) as where:
            assert await fails(where, "evil/web") and await fails(where, "web")

    asyncio.run(story())


async def proofbeat(folder: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "proofbeat", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def test_reload_status_and_check_name_document_line_and_whom_it_keeps_from_an_identity(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=meshed()) as where:
            text = meshed(FAULTS["a misspelt field"])
            (tmp_path / "policies.yaml").write_text(text)
            line = text.splitlines().index("spec: {freshnes: 60s}") + 1
            place = f"policies.yaml:{line}:8: "
            code, said = await proofbeat(tmp_path, "policy", "reload", "--admin", "admin.sock", "--strict")
            assert code == 1 and "'freshnes'" in said and "epoch" not in said
            code, said = await proofbeat(tmp_path, "policy", "reload", "--admin", "admin.sock")
            assert code == 1 and "policy epoch 2 is in force" in said
            assert f"{place}AttestationPolicy/shop/own: unknown key 'freshnes'. Did you mean 'freshness'?" in said
            assert "without identity until it is mended: shop/web" in said
            code, said = await proofbeat(tmp_path, "status", "--admin", "admin.sock")
            assert code == 1 and place in said and "shop/web" in said
            code, said = await proofbeat(tmp_path, "status", "--admin", "admin.sock", "--json")
            (fault,) = json.loads(said)["policies"]["faults"]
            assert fault["without_identity"] == ["shop/web"]
            code, said = await proofbeat(tmp_path, "policy", "check", "policies.yaml")
            assert code == 2 and place in said
            assert where.authority.faults().left_out == 0

    asyncio.run(story())
