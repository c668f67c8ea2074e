"""Evidence to answer, over real sockets, and everything that must not earn one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from attestation import cmw, cose, evidence, keys
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.errors import InvalidInput, Refused
from attestation.layers import Layer
from attestation.trust import Tier
from tests.system.authority.town import (
    BAD,
    Attester,
    Clock,
    Town,
    another_key,
    attester,
    measured,
    policies,
    posted,
    stranger,
    town,
)
from wire.messages import Answer, Attest, Body
from wire.problems import Rejected
from wire.session import JoinToken


async def refusal(one: Attester, signed: bytes) -> Refused:
    with pytest.raises(Refused) as refused:
        await one.send(signed)
    return refused.value


@pytest.mark.parametrize("session", [True, False], ids=["session", "post"])
def test_affirming_evidence_earns_a_certificate_around_its_result(tmp_path: Path, session: bool) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, session=session) as one:
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

    asyncio.run(story())


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
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            one.layers = measured(content=BAD)
            answer = await one.round()
            assert answer.chain == ""
            result = one.result(answer)
            assert result.status is Tier.CONTRAINDICATED
            assert any("/srv/app/main.py" in reason for reason in result.reasons)
            # Drift can be put right: the next round, with the content back, affirms.
            one.layers = measured()
            assert (await one.round()).chain != ""

    asyncio.run(story())


def test_audit_issues_whatever_the_verdict_and_the_result_in_the_leaf_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=policies(mode="audit")) as where, attester(where) as one:
            one.layers = measured(content=BAD)
            answer = await one.round()
            result = one.result(answer)
            assert (result.status, result.mode) == (Tier.CONTRAINDICATED, "audit")
            assert answer.chain != ""
            # Nothing that counts instances by their leases counts it as fresh.
            assert (await where.authority.instance(one.instance)).lease_end_ms == 0

    asyncio.run(story())


def test_an_executable_that_must_not_run_quarantines_the_instance_for_good(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            one.layers = measured(runtime=BAD)
            answer = await one.round()
            assert (one.result(answer).status, answer.chain) == (Tier.CONTRAINDICATED, "")
            pushed = await one.pushed.get()
            assert type(pushed).__name__ == "Quarantined"
            one.layers = measured()
            one.nonce = await one.client.challenge()
            assert (await refusal(one, one.signed())).kind == "instance-quarantined"

    asyncio.run(story())


def test_in_observe_mode_nothing_is_issued_and_no_tamper_sticks(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=policies(mode="observe")) as where, attester(where) as one:
            answer = await one.round()
            assert (one.result(answer).status, one.result(answer).mode) == (Tier.AFFIRMING, "observe")
            assert answer.chain == ""
            one.layers = measured(runtime=BAD)
            await one.round()
            one.layers = measured()
            assert one.result(await one.round()).status is Tier.AFFIRMING

    asyncio.run(story())


@pytest.mark.parametrize("session", [True, False], ids=["session", "post"])
def test_the_same_evidence_for_the_same_nonce_gets_the_same_answer(tmp_path: Path, session: bool) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, session=session) as one:
            signed = one.signed()
            first = await one.send(signed)
            again = await one.send(signed)
            assert (again.ear, again.chain) == (first.ear, first.chain)
            assert (again.issued_ms, again.lease_ms) == (first.issued_ms, first.lease_ms)
            # The nonce that came with the repeated answer is good.
            await one.round()

    asyncio.run(story())


def test_other_evidence_over_the_same_nonce_is_a_clone_and_quarantines(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            first, second = one.signed(), one.signed(lambda claims: replace(claims, boot_id="other"))
            await one.send(first)
            # The client itself would not send the second; the clone is another program with the same key.
            with pytest.raises(InvalidInput, match="other evidence"):
                await one.client.attest(second, one.bodies().__getitem__)
            with pytest.raises(Refused) as refused:
                await posted(where, one, Attest(second))
            assert refused.value.kind == "evidence-cloned"
            state = await where.authority.instance(one.instance)
            assert state.quarantined
            assert state.causes[0].kind == "clone"
            one.nonce = await one.client.challenge()
            assert (await refusal(one, one.signed())).kind == "instance-quarantined"
            # Not even the answer that was given before is given again.
            assert (await refusal(one, first)).kind == "instance-quarantined"

    asyncio.run(story())


def test_a_nonce_that_was_overtaken_is_no_clone(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            early = one.held
            one.nonce = await one.client.challenge()
            await one.round()
            one.nonce = early
            assert (await refusal(one, one.signed())).kind == "nonce-passed"
            one.nonce = await one.client.challenge()
            await one.round()
            assert not (await where.authority.instance(one.instance)).quarantined

    asyncio.run(story())


def test_a_stale_nonce_is_refused_and_a_new_one_helps(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with town(tmp_path, clock=clock) as where, attester(where) as one:
            clock.ahead = 20.0
            assert (await refusal(one, one.signed())).kind == "nonce-stale"
            one.nonce = await one.client.challenge()
            await one.round()

    asyncio.run(story())


def test_a_nonce_of_another_instance_or_of_nobody_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as one, attester(where, 2) as two:
            mine = one.held
            one.nonce = replace(two.held)
            assert (await refusal(one, one.signed())).kind == "nonce-foreign"
            one.nonce = replace(mine, value=mine.value[:-1] + bytes([mine.value[-1] ^ 1]))
            assert (await refusal(one, one.signed())).kind == "nonce-forged"
            one.nonce = mine
            await one.round()

    asyncio.run(story())


def test_evidence_by_a_key_that_did_not_enrol_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            assert (await refusal(one, another_key(one).signed())).kind == "evidence-key"

    asyncio.run(story())


def test_evidence_that_names_the_enrolled_key_and_was_signed_by_another_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            forged = cose.sign1(cose.parse(one.signed()).payload, another_key(one).key, aad=b"proofbeat/evidence")
            with pytest.raises(Rejected) as refused:
                await posted(where, one, Attest(forged))
            assert [fault.step for fault in refused.value.faults] == [7]
            assert refused.value.kind == "evidence-signature"

    asyncio.run(story())


def _other_curve(claims: Claims) -> Claims:
    return replace(claims, leaf_key=keys.public_der(ec.generate_private_key(ec.SECP384R1()).public_key()))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("leaf-key", lambda one: lambda claims: replace(claims, leaf_key=keys.public_der(one.key.public_key()))),
        ("leaf-key", lambda one: _other_curve),
        ("leaf-key", lambda one: lambda claims: replace(claims, leaf_key=b"")),
        ("sequence-mismatch", lambda one: lambda claims: replace(claims, sequence=claims.sequence + 1)),
        ("policy-epoch-stale", lambda one: lambda claims: replace(claims, policy_epoch=0)),
        ("claims-impossible", lambda one: lambda claims: replace(claims, revocation=-1)),
        ("claims-impossible", lambda one: lambda claims: replace(claims, layers=claims.layers + claims.layers[:1])),
        (
            "claims-impossible",
            lambda one: lambda claims: replace(claims, layers=(replace(claims.layers[0], age_ms=-1),)),
        ),
        (
            "claims-impossible",
            lambda one: lambda claims: replace(claims, layers=(replace(claims.layers[0], age_ms=9, full_age_ms=3),)),
        ),
        (
            "evidence-instance",
            lambda one: lambda claims: replace(claims, instance=replace(claims.instance, value="i-" + "f" * 32)),
        ),
    ],
)
def test_claims_that_cannot_be_are_refused(
    tmp_path: Path, kind: str, change: Callable[[Attester], Callable[[Claims], Claims]]
) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            with pytest.raises(Refused) as refused:
                await posted(where, one, Attest(one.signed(change(one))))
            assert refused.value.kind == kind
            # Nothing was accepted: the nonce is as good as before.
            assert (await one.round()).chain != ""

    asyncio.run(story())


def test_every_failed_step_is_reported_by_its_number(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with town(tmp_path, clock=clock) as where, attester(where) as one:
            clock.ahead = 30.0
            signed = another_key(one).signed(lambda claims: replace(claims, policy_epoch=9, leaf_key=b"", sequence=1))
            error = await refusal(one, signed)
            assert isinstance(error, Rejected)
            assert [(fault.step, fault.name) for fault in error.faults] == [
                (4, "nonce"),
                (5, "sequence"),
                (6, "evidence key"),
                (11, "policy epoch"),
                (12, "leaf key"),
            ]
            assert error.kind == "nonce-stale"

    asyncio.run(story())


def test_bytes_that_are_no_evidence_are_refused_whatever_they_are(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            for data in (
                b"",
                b"\xd2\x84",
                b"\xd2" + b"\x81" * 10_000,
                one.signed()[:-1],
                one.signed() + b"\0",
                cose.sign1(bytes.fromhex("a201010102"), one.key),
                cose.sign1(bytes(evidence.MOST_BYTES), one.key),
            ):
                with pytest.raises(Rejected) as refused:
                    await posted(where, one, Attest(data))
                assert refused.value.kind == "evidence-malformed"
                assert refused.value.faults[0].step == 1
            await one.round()

    asyncio.run(story())


def test_a_body_that_is_not_what_was_claimed_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            signed = one.signed()
            digest = next(iter(one.bodies()))
            for body in (Body(digest, b"another content"), Body("0" * 64, one.layers[Layer.FILES])):
                with pytest.raises(Refused) as refused:
                    await posted(where, one, Attest(signed, (body,)))
                assert refused.value.kind == "body-mismatch"
            # A layer hashed under another layer's domain is another body.
            crossed = list(one.bodies())[1]
            with pytest.raises(Refused):
                await posted(where, one, Attest(signed, (Body(crossed, one.layers[Layer.FILES]),)))
            await one.send(signed)

    asyncio.run(story())


def test_a_client_that_cannot_supply_what_is_asked_gets_no_answer(tmp_path: Path) -> None:
    def nothing(digest: Digest) -> bytes:
        raise KeyError(digest)

    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            with pytest.raises(KeyError):
                await one.client.attest(one.signed(), nothing)

    asyncio.run(story())


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
