"""Everything that must not earn an answer is refused by its name, and does no harm to the round after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import cose, evidence, keys
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.errors import InvalidInput, Refused
from attestation.layers import Layer
from tests.system.authority.town import Attester, Town, another_key, attester, played, posted, refusal, town
from wire.messages import Attest, Body
from wire.problems import Rejected


async def refusal_of(where: Town, one: Attester, signed: bytes, *bodies: Body) -> Refused:
    """What another program with the same key would hear."""
    return await refusal(posted(where, one, Attest(signed, bodies)))


def test_other_evidence_over_the_same_nonce_is_a_clone_and_quarantines(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        first, second = one.signed(), one.signed(lambda claims: replace(claims, boot_id="other"))
        await one.send(first)
        # The client itself would not send the second; the clone is another program with the same key.
        with pytest.raises(InvalidInput, match="other evidence"):
            await one.client.attest(second, one.bodies().__getitem__)
        assert (await refusal_of(where, one, second)).kind == "evidence-cloned"
        state = await where.authority.instance(one.instance)
        assert state.quarantined
        assert state.causes[0].kind == "clone"
        one.nonce = await one.client.challenge()
        assert (await refusal(one.send(one.signed()))).kind == "instance-quarantined"
        # Not even the answer that was given before is given again.
        assert (await refusal(one.send(first))).kind == "instance-quarantined"

    played(tmp_path, story)


def test_a_nonce_that_was_overtaken_is_no_clone(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        early = one.held
        one.nonce = await one.client.challenge()
        await one.round()
        one.nonce = early
        assert (await refusal(one.send(one.signed()))).kind == "nonce-passed"
        one.nonce = await one.client.challenge()
        await one.round()
        assert not (await where.authority.instance(one.instance)).quarantined

    played(tmp_path, story)


def test_a_stale_nonce_is_refused_and_a_new_one_helps(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        where.clock.ahead = 20.0
        assert (await refusal(one.send(one.signed()))).kind == "nonce-stale"
        one.nonce = await one.client.challenge()
        await one.round()

    played(tmp_path, story)


def test_a_nonce_of_another_instance_or_of_nobody_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as one, attester(where, 2) as two:
            mine = one.held
            one.nonce = replace(two.held)
            assert (await refusal(one.send(one.signed()))).kind == "nonce-foreign"
            one.nonce = replace(mine, value=mine.value[:-1] + bytes([mine.value[-1] ^ 1]))
            assert (await refusal(one.send(one.signed()))).kind == "nonce-forged"
            one.nonce = mine
            await one.round()

    asyncio.run(story())


def test_evidence_by_a_key_that_did_not_enrol_is_refused(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert (await refusal(one.send(another_key(one).signed()))).kind == "evidence-key"

    played(tmp_path, story)


def test_evidence_that_names_the_enrolled_key_and_was_signed_by_another_is_refused(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        forged = cose.sign1(cose.parse(one.signed()).payload, another_key(one).key, aad=b"proofbeat/evidence")
        refused = await refusal_of(where, one, forged)
        assert isinstance(refused, Rejected)
        assert ([fault.step for fault in refused.faults], refused.kind) == ([7], "evidence-signature")

    played(tmp_path, story)


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
    async def story(where: Town, one: Attester) -> None:
        assert (await refusal_of(where, one, one.signed(change(one)))).kind == kind
        # Nothing was accepted: the nonce is as good as before.
        assert (await one.round()).chain != ""

    played(tmp_path, story)


def test_every_failed_step_is_reported_by_its_number(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        where.clock.ahead = 30.0
        signed = another_key(one).signed(lambda claims: replace(claims, policy_epoch=9, leaf_key=b"", sequence=1))
        error = await refusal(one.send(signed))
        assert isinstance(error, Rejected)
        assert [(fault.step, fault.name) for fault in error.faults] == [
            (4, "nonce"),
            (5, "sequence"),
            (6, "evidence key"),
            (11, "policy epoch"),
            (12, "leaf key"),
        ]
        assert error.kind == "nonce-stale"

    played(tmp_path, story)


def test_bytes_that_are_no_evidence_are_refused_whatever_they_are(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        for data in (
            b"",
            b"\xd2\x84",
            b"\xd2" + b"\x81" * 10_000,
            one.signed()[:-1],
            one.signed() + b"\0",
            cose.sign1(bytes.fromhex("a201010102"), one.key),
            cose.sign1(bytes(evidence.MOST_BYTES), one.key),
        ):
            refused = await refusal_of(where, one, data)
            assert isinstance(refused, Rejected)
            assert (refused.kind, refused.faults[0].step) == ("evidence-malformed", 1)
        await one.round()

    played(tmp_path, story)


def test_a_body_that_is_not_what_was_claimed_is_refused(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        signed = one.signed()
        digest = next(iter(one.bodies()))
        for body in (Body(digest, b"another content"), Body("0" * 64, one.layers[Layer.FILES])):
            assert (await refusal_of(where, one, signed, body)).kind == "body-mismatch"
        # A layer hashed under another layer's domain is another body.
        crossed = list(one.bodies())[1]
        await refusal_of(where, one, signed, Body(crossed, one.layers[Layer.FILES]))
        await one.send(signed)

    played(tmp_path, story)


def test_a_client_that_cannot_supply_what_is_asked_gets_no_answer(tmp_path: Path) -> None:
    def nothing(digest: Digest) -> bytes:
        raise KeyError(digest)

    async def story(where: Town, one: Attester) -> None:
        with pytest.raises(KeyError):
            await one.client.attest(one.signed(), nothing)

    played(tmp_path, story)
