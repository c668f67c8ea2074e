"""Sessions: who gets one, whom the client believes, and what an end without a goodbye means."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import Unavailable
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import ca as authorities
from authority.issuer import leaf
from authority.issuer.ca import Ca
from tests.system.authority.town import Attester, Town, attester, holding, numbered, played, refusal, stranger, town
from wire import proofs, tls
from wire.messages import AttestNow, Hello
from wire.proofs import Purpose
from wire.session import AuthorityClient, Endpoint, JoinToken, Ticket

PATIENCE = 20.0


def test_the_authority_asks_for_a_round_with_a_nonce_that_is_good(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        assert await where.authority.attest_now(one.instance)
        pushed = await one.pushed.get()
        assert isinstance(pushed, AttestNow)
        one.nonce = pushed.nonce
        await one.round()
        assert not await where.authority.attest_now(numbered(9))

    played(tmp_path, story)


def test_a_run_that_ends_without_a_goodbye_re_enters_by_a_full_round(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            async with attester(where) as one:
                assert not one.held.full
            again = stranger(where)
            assert (await again.enrol(Ticket(one.known.ticket))).nonce.full
            async with holding(again):
                again.age_ms = 5_000
                assert (await refusal(again.round())).kind == "full-round-required"
                again.age_ms = 0
                again.nonce = await again.client.challenge()
                assert not (await again.round()).nonce.full
                await again.client.close(clean=True)
            third = stranger(where)
            assert not (await third.enrol(Ticket(again.known.ticket))).nonce.full
            await third.client.close(clean=False)
            fourth = stranger(where)
            assert (await fourth.enrol(Ticket(third.known.ticket), unclean=True)).nonce.full
            await fourth.client.close(clean=False)

    asyncio.run(story())


def test_a_session_that_breaks_asks_for_a_full_round_though_the_key_is_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            async with attester(where) as one:
                await one.round()
            await eventually(lambda: where.authority.instance(one.instance), lambda state: state.full_required)

    asyncio.run(story())


Seen = TypeVar("Seen")


async def eventually(ask: Callable[[], Awaitable[Seen]], done: Callable[[Seen], bool]) -> None:
    """The server notices the end of a socket when its kernel tells it, which nothing here can await."""
    async with asyncio.timeout(PATIENCE):
        while not done(await ask()):  # noqa: ASYNC110 - there is no event on this side of the socket
            await asyncio.sleep(0.01)


def test_a_second_session_of_the_same_instance_ends_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            url = where.where.url + "/v1/session"
            async with http_to(where) as http:
                proof = await hello(http, url, one.instance, one.key)
                async with http.ws_connect(url, headers=proof):
                    await eventually(connected(one), lambda up: not up)
            async with asyncio.timeout(PATIENCE):
                await one.client.wait_connected()

    def connected(one: Attester) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            return one.client.connected

        return ask

    asyncio.run(story())


def http_to(where: Town) -> aiohttp.ClientSession:
    context = tls.client_context(where.where.bundle, where.where.trust_domain)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def challenge(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as answer:
        assert answer.status == 401
        text = answer.headers["WWW-Authenticate"].split('"')[1]
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def authorization(sealed: bytes) -> dict[str, str]:
    return {"Authorization": "Proofbeat " + base64.urlsafe_b64encode(sealed).decode()}


async def hello(
    http: aiohttp.ClientSession, url: str, instance: InstanceId, key: ec.EllipticCurvePrivateKey
) -> dict[str, str]:
    return authorization(proofs.seal(Hello(instance, await challenge(http, url)), Purpose.SESSION, key))


def test_a_session_takes_the_enrolled_key_a_fresh_challenge_and_its_own_purpose(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, session=False) as one, http_to(where) as http:
            url = where.where.url + "/v1/session"
            good = await hello(http, url, one.instance, one.key)
            stolen = ec.generate_private_key(ec.SECP256R1())
            refused = [
                await hello(http, url, one.instance, stolen),
                await hello(http, url, numbered(9), one.key),
                authorization(proofs.seal(Hello(one.instance, b"made up"), Purpose.SESSION, one.key)),
                authorization(proofs.seal(Hello(one.instance, await challenge(http, url)), Purpose.POST, one.key)),
                {"Authorization": "Proofbeat nonsense"},
            ]
            async with http.ws_connect(url, headers=good):
                pass
            for headers in (good, *refused):  # a proof is good for one session
                with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                    await http.ws_connect(url, headers=headers)
                assert error.value.status == 401

    asyncio.run(story())


def test_what_is_no_request_ends_the_session_and_only_that(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, session=False) as one, http_to(where) as http:
            url = where.where.url + "/v1/session"
            for nonsense in (b"\xff", b"\xa0", bytes(100)):
                headers = await hello(http, url, one.instance, one.key)
                async with http.ws_connect(url, headers=headers) as socket:
                    await socket.send_bytes(nonsense)
                    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            one.nonce = await one.client.challenge()
            await one.round()

    asyncio.run(story())


def test_an_instance_that_is_not_known_any_more_has_to_enrol_again(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        one.client._who = (numbered(9), one.key)
        assert (await refusal(one.client.hold())).kind == "instance-unknown"

    played(tmp_path, story, session=False)


# Whom the client believes.


async def enrol_at(url: str, bundle: str, trust_domain: str = "town.example") -> None:
    client = AuthorityClient(Endpoint(url, trust_domain, bundle), lambda _: None, timeout=3.0)
    try:
        await client.enrol(JoinToken("a secret"), numbered(1), ec.generate_private_key(ec.SECP256R1()))
    finally:
        await client.close(clean=False)


async def impostor(chain: str, key: ec.EllipticCurvePrivateKey, folder: Path, heard: list[bytes]) -> asyncio.Server:
    """A TLS server that presents this chain, and notes every byte that it is told."""
    pem = folder / "impostor.pem"
    pem.write_text(authorities.key_pem(key) + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read(10_000))
        except OSError:
            heard.append(b"")
        finally:
            writer.close()

    return await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)


@pytest.mark.parametrize("who", ["a workload", "another CA", "another trust domain"])
def test_a_server_that_is_somebody_else_is_told_nothing(tmp_path: Path, who: str) -> None:
    async def story() -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        ca, other = (authorities.generate(tmp_path / name, name, 3600, now=now) for name in ("ca", "other"))
        key = ec.generate_private_key(ec.SECP256R1())
        end = now + timedelta(minutes=5)
        chain = {
            "a workload": lambda: workload_chain(ca, key, now, end),
            "another CA": lambda: leaf.serving(key.public_key(), "town.example", now, end, other),
            "another trust domain": lambda: leaf.serving(key.public_key(), "else.example", now, end, ca),
        }[who]()
        heard: list[bytes] = []
        async with await impostor(chain, key, tmp_path, heard) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable):
                await enrol_at(f"https://127.0.0.1:{port}", ca.bundle)
        assert not any(heard)

    asyncio.run(story())


def workload_chain(ca: Ca, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime) -> str:
    identity = SpiffeId("town.example", "/web")
    return leaf.sign(leaf.Leaf(identity, numbered(1), key.public_key(), 1, now, end, "ear"), ca)


def test_the_true_authority_is_believed_and_nothing_listening_is_unavailable(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            assert (await refusal(enrol_at(where.where.url, where.where.bundle))).kind == "token-invalid"
            gone = where.where
        with pytest.raises(Unavailable):
            await enrol_at(gone.url, gone.bundle)

    asyncio.run(story())
