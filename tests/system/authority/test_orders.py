"""Quarantine: recorded before it is acknowledged, washed off by nothing, ended by a signed release."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import keys, processes, release
from attestation.layers import Layer
from attestation.processes import ProcessKind
from attestation.trust import Tier
from attestation.violation import ViolationClass
from tests.system.authority.town import (
    BAD,
    Attester,
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
from wire.messages import PolicyChanged, Quarantined, Released, Report
from wire.problems import Rejected
from wire.session import JoinToken, Ticket

TAMPER = Report(1, ViolationClass.TAMPER, "a foreign program was executed", 1_700_000_000_000)
DRIFT = Report(1, ViolationClass.DRIFT, "a file was modified", 1_700_000_000_000)


async def next_round(one: Attester, generation: int = 1) -> object:
    one.generation = generation
    one.nonce = await one.client.challenge()
    return await one.round()


@pytest.mark.parametrize("session", [True, False], ids=["session", "post"])
def test_a_tamper_survives_restart_enrolment_and_fresh_keys(tmp_path: Path, session: bool) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, session=session) as one:
            await one.round()
            standing = await one.client.report(TAMPER)
            assert standing.quarantined
            expected = release.cause_id(
                one.instance, generation=1, kind="tamper", text=TAMPER.cause, at_ms=TAMPER.at_ms
            )
            assert [cause.id for cause in standing.causes] == [expected]
            assert (await refusal(next_round(one))).kind == "instance-quarantined"
            ticket = Ticket(one.known.ticket)
        async with town(tmp_path) as where:
            one = stranger(where)
            assert one.key is not None
            enrolment = await one.enrol(ticket)
            assert enrolment.standing.quarantined
            assert enrolment.standing.causes[0].text == TAMPER.cause
            async with holding(one, session=session):
                assert (await refusal(next_round(one))).kind == "instance-quarantined"
            again = stranger(where)
            enrolment = await again.enrol(JoinToken(await where.authority.create_token("web")))
            assert enrolment.standing.quarantined
            async with holding(again, session=session):
                assert (await refusal(next_round(again))).kind == "instance-quarantined"

    asyncio.run(story())


def test_a_report_is_safe_to_repeat_and_drift_quarantines_nobody(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert not (await one.client.report(DRIFT)).quarantined
        assert not (await one.client.report(DRIFT)).quarantined
        await next_round(one)
        state = await where.authority.instance(one.instance)
        assert [cause.text for cause in state.records] == [DRIFT.cause]

    played(tmp_path, story)


def test_evidence_from_before_a_reported_violation_earns_nothing(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        before = one.signed()
        await one.client.report(DRIFT)
        assert (await refusal(one.send(before))).kind == "generation-past"
        await next_round(one)

    played(tmp_path, story)


def test_a_release_ends_the_quarantine_by_a_signed_order_and_asks_for_a_full_round(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        standing = await one.client.report(TAMPER)
        order = await where.authority.release(one.instance)
        pushed = await one.pushed.get()
        assert pushed == Released(order)
        names = [cause.id for cause in standing.causes]
        opened = release.parse(order, keys.from_der(one.known.result_key))
        assert opened.covers(one.instance, names)
        nonce = await one.client.challenge()
        assert nonce.full
        one.age_ms = 5_000
        one.nonce, one.generation = nonce, 1
        assert (await refusal(one.round())).kind == "full-round-required"
        one.age_ms = 0
        await next_round(one)
        assert not (await one.client.challenge()).full
        # A late copy of the report is no later cause.
        assert not (await one.client.report(TAMPER)).quarantined
        assert one.known.standing.release == ""
        assert (await one.enrol(Ticket(one.known.ticket))).standing.release == order

    played(tmp_path, story)


def test_a_release_is_void_when_a_cause_stands_that_it_does_not_name(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        first = await one.client.report(TAMPER)
        seen = tuple(cause.id for cause in first.causes)
        later = Report(2, ViolationClass.TAMPER, "a tracer was attached", TAMPER.at_ms + 1)
        both = await one.client.report(later)
        assert (await refusal(where.authority.release(one.instance, seen))).kind == "release-void"
        assert (await where.authority.instance(one.instance)).quarantined
        await where.authority.release(one.instance, tuple(cause.id for cause in both.causes))
        assert (await refusal(where.authority.release(one.instance))).kind == "release-void"
        state = await where.authority.instance(one.instance)
        assert not state.quarantined
        assert len(state.released) == 2

    played(tmp_path, story)


def test_an_operator_quarantines_and_the_sidecar_hears_of_it_at_once(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        standing = await where.authority.quarantine(one.instance, "it looked odd")
        assert await one.pushed.get() == Quarantined(standing.causes[0])
        assert standing.causes[0].kind == "order"
        with pytest.raises(Rejected) as rejected:
            await next_round(one)
        assert rejected.value.kind == "instance-quarantined"
        assert [(fault.step, fault.name) for fault in rejected.value.faults] == [(9, "quarantine")]
        assert (await refusal(where.authority.quarantine(stranger(where, 9).instance, "x"))).kind == "instance-unknown"

    played(tmp_path, story)


@pytest.mark.parametrize("mode", ["audit", "observe"])
def test_where_policy_does_not_enforce_a_tamper_is_only_recorded(tmp_path: Path, mode: str) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert not (await one.client.report(TAMPER)).quarantined
        await next_round(one)
        assert [cause.kind for cause in (await where.authority.instance(one.instance)).records] == ["tamper"]

    played(tmp_path, story, rules=policies(mode=mode))


def recovering(how: str) -> str:
    """The policies, with this `recovery`."""
    return policies().replace(
        "  files: {include: [/srv/app]}\n", f"  files: {{include: [/srv/app]}}\n  recovery: {how}\n"
    )


@pytest.mark.parametrize("how", ["replace", "manual"])
def test_drift_that_no_measurement_is_to_heal_quarantines_and_a_release_ends_it(tmp_path: Path, how: str) -> None:
    async def story(where: Town, one: Attester) -> None:
        standing = await one.client.report(DRIFT)
        assert [cause.kind for cause in standing.causes] == ["drift"]
        assert (await refusal(next_round(one))).kind == "instance-quarantined"
        told = await where.authority.why(one.instance.value, None)
        assert told.lasting and "release" in told.repair[-1]
        await where.authority.release(one.instance)
        await next_round(one)

    played(tmp_path, story, rules=recovering(f"{{drift: {how}}}"))


def test_where_no_measurement_heals_drift_a_round_that_shows_some_quarantines(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.layers = measured(content=BAD)
        await one.round()
        (cause,) = (await where.authority.instance(one.instance)).causes
        assert (cause.kind, await one.pushed.get()) == ("drift", Quarantined(cause))

    played(tmp_path, story, rules=recovering("{drift: replace}"))


def test_a_measurement_that_came_late_quarantines_nobody(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.age_ms = 61_000
        assert one.result(await one.round()).status is Tier.WARNING
        assert not (await where.authority.instance(one.instance)).quarantined

    played(tmp_path, story, rules=recovering("{drift: replace}"))


def test_drift_that_comes_too_often_quarantines_whatever_heals_it_else(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert (await one.client.report(replace(DRIFT, kind="flapping"))).quarantined
        await where.authority.release(one.instance)
        await next_round(one)

    played(tmp_path, story)


def test_what_was_let_pass_binds_once_it_is_told_again_under_a_policy_that_enforces(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert not (await one.client.report(TAMPER)).quarantined
        (tmp_path / "policies.yaml").write_text(policies())
        await where.authority.reload_policies()
        assert (await one.client.report(TAMPER)).quarantined
        await where.authority.release(one.instance)
        assert not (await one.client.report(TAMPER)).quarantined, "a late copy is no later cause"

    played(tmp_path, story, rules=policies(mode="audit"))


def test_under_manual_recovery_no_new_instance_takes_the_place_of_one_that_nobody_released(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.client.report(TAMPER)
        token = JoinToken(await where.authority.create_token("web"))
        successor = stranger(where, 2)
        refused = await refusal(successor.enrol(token))
        assert (refused.kind, one.instance.value in refused.mend) == ("instance-quarantined", True)
        other = stranger(where, 3)
        await other.enrol(JoinToken(await where.authority.create_token("api")))
        await where.authority.release(one.instance)
        await successor.enrol(token)
        async with holding(successor):
            await successor.round()

    played(tmp_path, story, rules=recovering("{tamper: manual}"))


@pytest.mark.parametrize("how", ["{tamper: replace}", "{drift: manual}"])
def test_where_a_new_instance_is_enough_it_enrols(tmp_path: Path, how: str) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.client.report(TAMPER)
        async with attester(where, 2) as successor:
            await successor.round()

    played(tmp_path, story, rules=recovering(how))


def test_a_new_policy_is_a_new_epoch_and_evidence_under_the_old_one_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            assert await where.authority.reload_policies() == 1
            (tmp_path / "policies.yaml").write_text(policies(freshness="90s"))
            assert await where.authority.reload_policies() == 2
            pushed = await one.pushed.get()
            assert isinstance(pushed, PolicyChanged)
            assert pushed == await one.client.policy()
            assert pushed.epoch == 2
            assert (await refusal(one.round())).kind == "policy-epoch-stale"
        async with town(tmp_path) as where:
            # Going back is a new epoch as well, also over a restart.
            (tmp_path / "policies.yaml").write_text(policies())
            assert await where.authority.reload_policies() == 3

    asyncio.run(story())


def test_a_policy_that_cannot_be_read_leaves_the_one_in_force(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        (tmp_path / "policies.yaml").write_text("kind: Nonsense")
        with pytest.raises(Exception, match="unknown kind"):
            await where.authority.reload_policies()
        await one.round()

    played(tmp_path, story)


def test_a_request_signed_by_another_key_quarantines_nobody(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.client._who = (one.instance, ec.generate_private_key(ec.SECP256R1()))
        assert (await refusal(one.client.report(TAMPER))).kind == "proof-invalid"
        assert not (await where.authority.instance(one.instance)).quarantined

    played(tmp_path, story, session=False)


def test_a_file_name_that_is_no_text_quarantines_like_any_other(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        name = b"/tmp/\xff\x1b[2J\nevil".decode("utf-8", "surrogateescape")
        kind = ProcessKind(name, BAD, "", "", 0, 0, "0", False, 0, ())
        one.layers = one.layers | {Layer.PROCESSES: processes.pack([kind])}
        assert (await one.round()).chain == ""
        (cause,) = (await where.authority.instance(one.instance)).causes
        assert "\\udcff\\x1b[2J\\nevil" in cause.text
        told = Report(1, ViolationClass.TAMPER, f"{name} was executed", 5)
        identity = release.cause_id(one.instance, generation=1, kind="tamper", text=told.cause, at_ms=5)
        assert identity in {each.id for each in (await one.client.report(told)).causes}

    played(tmp_path, story)


def test_reports_without_end_keep_the_latest_and_fill_no_disk(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        reports = [Report(number, ViolationClass.TAMPER, f"cause {number}", number) for number in range(205)]
        standings = [await one.client.report(report) for report in reports]
        assert len(standings[-1].causes) == 200
        assert "cause 204" in {cause.text for cause in standings[-1].causes}

    played(tmp_path, story)
