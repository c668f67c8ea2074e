"""Rules of a policy at a real authority: the false and the undecidable close, and what is wrong is refused."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from attestation import processes
from attestation.errors import InvalidConfiguration, Refused
from attestation.layers import Layer
from attestation.processes import ProcessKind
from attestation.trust import Tier
from tests.system.authority.town import Attester, Town, attester, measured, policies, refusal, town


def under(*rules: str) -> str:
    """The town's policies, with these rules, a line each."""
    lines = "".join(f"    {each}\n" for each in rules)
    return policies().replace(
        "  files: {include: [/srv/app]}\n", f"  files: {{include: [/srv/app]}}\n  rules:\n{lines}"
    )


NO_ROOT = "noRoot: {that: 'processes.kinds.all(k, k.uid != 0)', message: nothing runs as root}"
TEAM = "team: {that: 'registration.labels.team == \"shop\"', message: a team answers for it}"


def as_root(layers: dict[Layer, bytes]) -> dict[Layer, bytes]:
    """The same program, run by root."""
    kinds: list[ProcessKind] = [replace(each, uid=0) for each in processes.unpack(layers[Layer.PROCESSES])]
    return {**layers, Layer.PROCESSES: processes.pack(kinds)}


async def again(one: Attester) -> tuple[Tier, str]:
    """What the next round comes to: its tier, and the certificate."""
    one.nonce = await one.client.challenge()
    answer = await one.round()
    return one.result(answer).status, answer.chain


async def cause(where: Town) -> tuple[str, str, str]:
    """Kind, sentence and place of what closes `web`."""
    told = await where.authority.why("web", None)
    assert told.cause is not None
    return told.cause.kind, told.cause.text, told.cause.place


def test_a_rule_that_becomes_false_takes_the_certificate_and_says_where_it_stands_until_it_is_true(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=under(NO_ROOT)) as where, attester(where) as one:
            tier, chain = await again(one)
            assert (tier, bool(chain)) == (Tier.AFFIRMING, True)
            one.layers = as_root(one.layers)
            assert await again(one) == (Tier.CONTRAINDICATED, "")
            kind, text, place = await cause(where)
            assert kind == "rule-failed"
            assert text == "rule noRoot: it is false with 1 processes.kinds, where nothing runs as root"
            file, _, line = place.partition(":")
            assert "noRoot" in (tmp_path / file).read_text().splitlines()[int(line) - 1]
            one.layers = measured()
            tier, chain = await again(one)
            assert (tier, bool(chain)) == (Tier.AFFIRMING, True)

    asyncio.run(story())


def test_a_rule_that_cannot_be_evaluated_gives_no_identity(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=under(TEAM)) as where, attester(where) as one:
            assert await again(one) == (Tier.CONTRAINDICATED, "")
            kind, text, _ = await cause(where)
            assert (kind, text) == (
                "rule-error",
                "rule team: it cannot be evaluated: a label that is not there, where a team answers for it",
            )

    asyncio.run(story())


def test_a_rule_of_class_tamper_that_becomes_false_quarantines_until_a_release(tmp_path: Path) -> None:
    async def story() -> None:
        tamper = NO_ROOT.replace("message:", "class: tamper, message:")
        async with town(tmp_path, rules=under(tamper)) as where, attester(where) as one:
            assert (await again(one))[0] is Tier.AFFIRMING
            one.layers = as_root(one.layers)
            assert await again(one) == (Tier.CONTRAINDICATED, "")
            assert (await cause(where))[0] == "rule-failed"
            one.layers = measured()
            with pytest.raises(Refused, match="quarantined: rule noRoot"):
                await again(one)

    asyncio.run(story())


def test_a_measurement_that_grows_old_is_judged_anew_though_its_digest_stays(tmp_path: Path) -> None:
    async def story() -> None:
        young = "young: {that: 'files.age <= duration(\"10s\")', message: the files were looked at lately}"
        async with town(tmp_path, rules=under(young)) as where, attester(where) as one:
            assert (await again(one))[0] is Tier.AFFIRMING
            one.age_ms = 9_000
            assert (await again(one))[0] is Tier.AFFIRMING
            one.age_ms = 11_000
            assert (await again(one))[0] is Tier.CONTRAINDICATED

    asyncio.run(story())


def test_rules_that_cannot_be_run_are_refused_with_their_place_and_give_nobody_an_identity(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=under(NO_ROOT)) as where, attester(where) as one:
            (tmp_path / "policies.yaml").write_text(under(NO_ROOT.replace("k.uid", "k.user")))
            with pytest.raises(
                InvalidConfiguration, match=r"policies\.yaml:\d+:\d+: spec\.rules\.noRoot\.that.*'user'"
            ):
                await where.authority.reload_policies(strict=True)
            assert (await again(one))[0] is Tier.AFFIRMING
            await where.authority.reload_policies()
            assert (await refusal(one.client.challenge())).kind == "registration-unruled"

    asyncio.run(story())


def test_sidecars_are_not_told_rules_and_go_on_when_only_those_change(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=under(NO_ROOT)) as where, attester(where) as one:
            payload = one.known.policy.split(".")[1]
            told = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            assert told["policy"]["spec"]["mode"] == "enforce"
            assert "rules" not in told["policy"]["spec"]
            (tmp_path / "policies.yaml").write_text(under(NO_ROOT, TEAM))
            assert await where.authority.reload_policies() == 2
            one.enrolment = replace(one.known, policy_epoch=2)
            assert (await again(one))[0] is Tier.CONTRAINDICATED

    asyncio.run(story())
