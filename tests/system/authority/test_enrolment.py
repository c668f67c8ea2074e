"""Who may speak for an instance."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import keys, results
from attestation.errors import InvalidConfiguration
from tests.system.authority.town import API_REGISTRATION, Clock, numbered, policies, refusal, stranger, town
from wire import messages, proofs, tls
from wire.messages import Enrol
from wire.proofs import Purpose
from wire.session import AuthorityClient, JoinToken, Ticket


def another_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_token_buys_the_registered_identity_policy_and_a_nonce(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            one = stranger(where)
            enrolment = await one.enrol(JoinToken(await where.authority.create_token("web")))
            assert enrolment.spiffe_id == "spiffe://town.example/web"
            assert enrolment.bundle == where.where.bundle
            assert not enrolment.standing.quarantined
            document = json.loads(results.open_signed(enrolment.policy, keys.from_der(enrolment.result_key)))
            assert document["epoch"] == enrolment.policy_epoch == 1
            assert document["policy"]["spec"]["freshness"] == "1m"
            assert document["registration"]["spec"]["spiffeId"] == enrolment.spiffe_id
            assert enrolment.nonce.valid_ms == 20_000
            await one.client.close(clean=False)

    asyncio.run(story())


@pytest.mark.parametrize("credential", [JoinToken("never issued"), Ticket("never issued")])
def test_what_was_never_issued_buys_nothing(tmp_path: Path, credential: JoinToken | Ticket) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            one = stranger(where)
            kind = "token-invalid" if isinstance(credential, JoinToken) else "ticket-invalid"
            assert (await refusal(one.enrol(credential))).kind == kind
            await one.client.close(clean=False)

    asyncio.run(story())


def test_a_token_is_good_once_and_not_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with town(tmp_path, clock=clock) as where:
            used, expired = [JoinToken(await where.authority.create_token("web", lifetime=60.0)) for _ in range(2)]
            one, two = stranger(where, 1), stranger(where, 2)
            await one.enrol(used)
            assert (await refusal(two.enrol(used))).kind == "token-used"
            clock.ahead = 60.0
            assert (await refusal(two.enrol(expired))).kind == "token-expired"
            for each in (one, two):
                await each.client.close(clean=False)

    asyncio.run(story())


def test_a_lost_answer_is_given_again_to_the_same_key_and_to_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            one = stranger(where)
            token = JoinToken(await where.authority.create_token("web"))
            first = await one.enrol(token)
            assert (await one.enrol(token)).ticket == first.ticket
            second = await one.enrol(Ticket(first.ticket))
            assert second.ticket != first.ticket
            assert (await one.enrol(Ticket(first.ticket))).ticket == second.ticket
            mine, one.key = one.key, another_key()
            assert (await refusal(one.enrol(Ticket(first.ticket)))).kind == "ticket-spent"
            assert (await refusal(one.enrol(token))).kind == "token-used"
            # Once the successor has been used, nobody gets the earlier answer any more.
            one.key = mine
            await one.enrol(Ticket(second.ticket))
            assert (await refusal(one.enrol(Ticket(first.ticket)))).kind == "ticket-invalid"
            await one.client.close(clean=False)

    asyncio.run(story())


def test_a_ticket_belongs_to_its_instance(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            one, two = stranger(where, 1), stranger(where, 2)
            ticket = Ticket((await one.enrol(JoinToken(await where.authority.create_token("web")))).ticket)
            for thief in (two, stranger(where, 3)):
                assert (await refusal(thief.enrol(ticket))).kind == "ticket-invalid"
                await thief.client.close(clean=False)
            await one.client.close(clean=False)

    asyncio.run(story())


def test_an_instance_keeps_its_registration(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            one = stranger(where)
            await one.enrol(JoinToken(await where.authority.create_token("web")))
            another = JoinToken(await where.authority.create_token("api"))
            assert (await refusal(one.enrol(another))).kind == "registration-conflict"
            await one.client.close(clean=False)

    asyncio.run(story())


def test_a_registration_that_is_unknown_gets_no_token_and_one_that_went_away_no_enrolment(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            assert (await refusal(where.authority.create_token("nobody"))).kind == "registration-unknown"
            token = JoinToken(await where.authority.create_token("api"))
            (tmp_path / "policies.yaml").write_text(policies().replace(API_REGISTRATION, ""))
            await where.authority.reload_policies()
            one = stranger(where)
            assert (await refusal(one.enrol(token))).kind == "registration-unknown"
            await one.client.close(clean=False)

    asyncio.run(story())


def test_an_enrolment_that_its_own_key_did_not_sign_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            token = await where.authority.create_token("web")
            request = Enrol(numbered(1), keys.public_der(another_key().public_key()), join_token=token)
            neither = another_key()
            bodies = {
                "proof-invalid": (
                    proofs.seal(request, Purpose.ENROL, another_key()),
                    # The right key, for another purpose.
                    proofs.seal(
                        Enrol(numbered(1), keys.public_der(neither.public_key()), join_token=token),
                        Purpose.SESSION,
                        neither,
                    ),
                ),
                "malformed": (
                    b"",
                    b"\xd2\x81" * 5000,
                    proofs.seal(Enrol(numbered(1), keys.public_der(neither.public_key())), Purpose.ENROL, neither),
                    proofs.seal(messages.Hello(numbered(1), b"x"), Purpose.ENROL, neither),
                ),
            }
            context = tls.client_context(where.where.bundle, where.where.trust_domain)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
                for kind, sealed in bodies.items():
                    for body in sealed:
                        async with http.post(where.where.url + "/v1/enroll", data=body) as answer:
                            assert answer.content_type == "application/problem+json"
                            assert (await answer.json())["type"].endswith(f"/{kind}")

    asyncio.run(story())


def test_secrets_are_on_disk_as_digests_only_and_files_are_private(tmp_path: Path) -> None:
    async def story() -> str:
        async with town(tmp_path) as where:
            token = await where.authority.create_token("web")
            one = stranger(where)
            ticket = (await one.enrol(JoinToken(token))).ticket
            await one.client.close(clean=False)
            return token + " " + ticket

    token, ticket = asyncio.run(story()).split()
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "policies.yaml":
            assert path.stat().st_mode & 0o077 == 0, path
            assert token.encode() not in path.read_bytes()
            assert ticket.encode() not in path.read_bytes()


def test_the_bundle_document_is_a_spiffe_bundle(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            context = tls.client_context(where.where.bundle, where.where.trust_domain)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
                async with http.get(where.where.url + "/v1/bundle") as answer:
                    document = json.loads(await answer.read())
                async with http.get(where.where.url + "/nothing") as answer:
                    assert (await answer.json())["type"].endswith("/not-found")
            (key,) = document["keys"]
            assert key["use"] == "x509-svid"
            assert "kid" not in key
            (der,) = key["x5c"]
            pem = "".join(where.where.bundle.split("\n")[1:-2])
            assert base64.b64decode(der) == base64.b64decode(pem)
            assert document["spiffe_sequence"] > 0
            assert document["spiffe_refresh_hint"] > 0

    asyncio.run(story())


def test_nothing_is_asked_before_somebody_has_enrolled(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            client = AuthorityClient(where.endpoint(), lambda _: None)
            with pytest.raises(Exception, match="nobody has enrolled"):
                await client.challenge()
            await client.close()

    asyncio.run(story())


def test_an_identity_of_another_trust_domain_is_nobodys(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            (tmp_path / "policies.yaml").write_text(
                policies().replace("spiffe://town.example/api", "spiffe://other/api")
            )
            with pytest.raises(InvalidConfiguration, match="'other'"):
                await where.authority.reload_policies(strict=True)
            assert await where.authority.create_token("api")
            assert await where.authority.reload_policies() == 2
            assert (await refusal(where.authority.create_token("api"))).kind == "registration-unruled"
            (tmp_path / "policies.yaml").write_text(policies())
            assert await where.authority.reload_policies() == 3
            assert await where.authority.create_token("api")

    asyncio.run(story())
