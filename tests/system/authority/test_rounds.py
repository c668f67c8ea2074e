"""Evidence to answer, over real sockets: what earns a certificate, and what no more than a result."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from attestation import cmw
from attestation.trust import Tier
from tests.system.authority.town import (
    BAD,
    Attester,
    Town,
    attester,
    measured,
    played,
    policies,
    refusal,
    stranger,
    town,
)
from wire.messages import Answer, Quarantined
from wire.session import JoinToken


@pytest.mark.parametrize("session", [True, False], ids=["session", "post"])
def test_affirming_evidence_earns_a_certificate_around_its_result(tmp_path: Path, session: bool) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert one.client.connected is session
        nonce = one.held
        answer = await one.round()
        result = one.result(answer)
        assert result.status is Tier.AFFIRMING
        assert (result.nonce, result.instance, str(result.spiffe_id)) == (
            nonce.value,
            one.instance,
            "spiffe://town.example/web",
        )
        assert (result.mode, result.generation, result.policy_epoch) == ("enforce", 0, 1)
        # The lease counts from the nonce's issue, in the result and in the certificate alike.
        assert (answer.issued_ms, answer.lease_ms) == (nonce.issued_ms, 60_000)
        assert result.expires_at == (nonce.issued_ms + 60_000) // 1000
        _check_leaf(one, where, answer)

    played(tmp_path, story, session=session)


def _check_leaf(one: Attester, where: Town, answer: Answer) -> None:
    leaf, intermediate = x509.load_pem_x509_certificates(answer.chain.encode())
    root = x509.load_pem_x509_certificate(where.where.bundle.encode())
    verifier = PolicyBuilder().store(Store([root])).build_client_verifier()
    names = verifier.verify(leaf, [intermediate]).subjects
    assert names == [x509.UniformResourceIdentifier("spiffe://town.example/web")]
    assert leaf.public_key() == one.leaf.public_key()
    assert leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value == one.instance.value
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert int(leaf.not_valid_after_utc.timestamp()) == (answer.issued_ms + answer.lease_ms) // 1000
    assert cmw.ear_of(leaf) == answer.ear


def test_bodies_are_asked_for_once_and_again_only_when_they_change(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as one, attester(where, 2) as two:
            await one.round()
            assert set(one.asked_for) == set(one.bodies())
            await one.round()
            await two.round()
            assert len(one.asked_for) == 2
            assert two.asked_for == []
            one.layers = measured(BAD)
            answer = await one.round()
            assert one.result(answer).status is Tier.CONTRAINDICATED
            assert len(one.asked_for) == 3

    asyncio.run(story())


def test_a_workload_that_deviates_gets_a_result_with_reasons_and_no_certificate(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.layers = measured(content=BAD)
        answer = await one.round()
        assert answer.chain == ""
        result = one.result(answer)
        assert result.status is Tier.CONTRAINDICATED
        assert any("/srv/app/main.py" in reason for reason in result.reasons)
        # Drift can be put right: the next round, with the content back, affirms.
        one.layers = measured()
        assert (await one.round()).chain != ""

    played(tmp_path, story)


def test_audit_issues_whatever_the_verdict_and_the_result_in_the_leaf_says_so(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.layers = measured(content=BAD)
        answer = await one.round()
        result = one.result(answer)
        assert (result.status, result.mode) == (Tier.CONTRAINDICATED, "audit")
        assert answer.chain != ""
        # Nothing that counts instances by their leases counts it as fresh.
        assert (await where.authority.instance(one.instance)).lease_end_ms == 0

    played(tmp_path, story, rules=policies(mode="audit"))


@pytest.mark.parametrize("warnings", ["serve", "close"])
def test_a_warning_earns_a_marked_certificate_where_policy_serves_it(tmp_path: Path, warnings: str) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.age_ms = 61_000
        answer = await one.round()
        assert one.result(answer).status is Tier.WARNING
        state = await where.authority.instance(one.instance)
        assert (answer.chain != "", state.state) == ((True, "warning") if warnings == "serve" else (False, "stale"))
        if answer.chain:
            leaf = x509.load_pem_x509_certificates(answer.chain.encode())[0]
            assert cmw.ear_of(leaf) == answer.ear, "whoever reads the certificate reads the warning"
            told = await where.authority.why(one.instance.value)
            assert told.open and told.cause is not None and told.cause.kind == "layer-old"
        one.age_ms = 0
        assert (await one.round()).chain
        assert (await where.authority.instance(one.instance)).state == "fresh"

    played(tmp_path, story, rules=policies().replace("  mode: enforce\n", f"  mode: enforce\n  warnings: {warnings}\n"))


def test_in_observe_mode_nothing_is_issued_and_no_tamper_sticks(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        answer = await one.round()
        assert (one.result(answer).status, one.result(answer).mode) == (Tier.AFFIRMING, "observe")
        assert answer.chain == ""
        one.layers = measured(runtime=BAD)
        await one.round()
        one.layers = measured()
        assert one.result(await one.round()).status is Tier.AFFIRMING

    played(tmp_path, story, rules=policies(mode="observe"))


def test_an_executable_that_must_not_run_quarantines_the_instance_for_good(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.layers = measured(runtime=BAD)
        answer = await one.round()
        assert (one.result(answer).status, answer.chain) == (Tier.CONTRAINDICATED, "")
        assert isinstance(await one.pushed.get(), Quarantined)
        one.layers = measured()
        one.nonce = await one.client.challenge()
        assert (await refusal(one.send(one.signed()))).kind == "instance-quarantined"

    played(tmp_path, story)


@pytest.mark.parametrize("session", [True, False], ids=["session", "post"])
def test_the_same_evidence_for_the_same_nonce_gets_the_same_answer(tmp_path: Path, session: bool) -> None:
    async def story(where: Town, one: Attester) -> None:
        signed = one.signed()
        first = await one.send(signed)
        again = await one.send(signed)
        assert (again.ear, again.chain) == (first.ear, first.chain)
        assert (again.issued_ms, again.lease_ms) == (first.issued_ms, first.lease_ms)
        # The nonce that came with the repeated answer is good.
        await one.round()

    played(tmp_path, story, session=session)


def test_two_hundred_rounds_in_flight_share_commits_and_none_is_lost(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 0) as first:
            await first.round()  # the bodies are known from here on
            crowd = [first]
            async with asyncio.TaskGroup() as tasks:
                for number in range(1, 200):
                    one = stranger(where, number)
                    crowd.append(one)
                    tasks.create_task(join(where, one))
            signed = [one.signed() for one in crowd]
            before = where.authority._store.commits
            async with asyncio.TaskGroup() as tasks:
                rounds = [tasks.create_task(one.send(each)) for one, each in zip(crowd, signed, strict=True)]
            commits = where.authority._store.commits - before
            assert all(
                one.result(task.result()).status is Tier.AFFIRMING for one, task in zip(crowd, rounds, strict=True)
            )
            # How few depends on what else the machine does; tests/unit/authority/test_store.py holds the sharing.
            assert commits < 200
            serials = {
                x509.load_pem_x509_certificates(task.result().chain.encode())[0].serial_number for task in rounds
            }
            assert len(serials) == 200
            states = await where.authority.instances()
            assert {state.tier for state in states} == {"affirming"}
            assert len(states) == 200
            for one in crowd[1:]:
                await one.client.close(clean=False)

    asyncio.run(story())


async def join(where: Town, one: Attester) -> None:
    await one.enrol(JoinToken(await where.authority.create_token("web")))
