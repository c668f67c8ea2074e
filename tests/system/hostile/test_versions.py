"""One minor apart: a sidecar of 1.0 under this authority, and this sidecar under an authority of 1.0.

Both are played by the frozen bytes of 1.0: its messages with fresh values in them, and not one field more.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import cbor, cose, keys
from attestation.layers import Layer
from attestation.violation import ViolationClass
from tests.system.authority.town import Attester, Town, attester, numbered, stranger, town
from tests.system.hostile.authority import TRUST_DOMAIN, listening, made_ca, reserved, serial_of
from tests.system.hostile.world import decent, world
from tests.unit.wire.recorded import recorded, told
from wire import messages, tls, versions
from wire.messages import Attest, Enrolment, Nonce, Report
from wire.session import AuthorityClient, Endpoint, JoinToken
from wire.versions import Version

MOST = 1 << 25


def strict(frame: bytes) -> tuple[str, int, dict[str, Any]]:
    """Read as 1.0 does: every field that it knows, and none besides."""
    envelope = cbor.loads(frame, most_bytes=MOST)
    kind, fields = envelope["is"], envelope["in"]
    assert fields.keys() == told(kind).keys(), kind
    for name, known in told(kind).items():
        if isinstance(known, dict):
            assert fields[name].keys() == known.keys(), f"{kind}.{name}"
    return kind, envelope["no"], fields


def said(kind: str, number: int = 0, **fresh: Any) -> bytes:
    """A message as 1.0 says it, with fresh values."""
    assert fresh.keys() <= told(kind).keys()
    return cbor.dumps({"is": kind, "no": number, "in": {**told(kind), **fresh}})


class OldSidecar:
    """What a sidecar of 1.0 sends, and how it reads what comes: without any header about versions."""

    def __init__(self, where: Town, one: Attester) -> None:
        self._url = where.where.url
        self._one = one
        context = tls.client_context(where.where.bundle, where.where.trust_domain)
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        self._numbers = iter(range(1, 1000))

    async def close(self) -> None:
        await self._http.close()

    def sealed(self, kind: str, purpose: str, **fresh: Any) -> bytes:
        return cose.sign1(said(kind, **fresh), self._one.key, aad=purpose.encode())

    async def post(self, path: str, body: bytes) -> dict[str, Any]:
        async with self._http.post(self._url + path, data=body) as answer:
            assert answer.status == 200, await answer.text()
            return strict(await answer.read())[2]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self._http.get(self._url + "/v1/session") as answer:
            text = answer.headers["WWW-Authenticate"].split('"')[1]
        challenge = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        hello = self.sealed("Hello", "proofbeat/session", instance=str(self._one.instance), challenge=challenge)
        proof = {"Authorization": "Proofbeat " + base64.urlsafe_b64encode(hello).decode()}
        async with self._http.ws_connect(self._url + "/v1/session", headers=proof) as socket:
            yield socket

    async def ask(self, socket: aiohttp.ClientWebSocketResponse, kind: str, **fresh: Any) -> tuple[str, dict[str, Any]]:
        number = next(self._numbers)
        await socket.send_bytes(said(kind, number, **fresh))
        answered, back, fields = strict((await socket.receive()).data)
        assert back == number
        return answered, fields


def test_a_sidecar_of_1_0_lives_its_whole_life_under_this_authority(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, AsyncExitStack() as stack:
            one = stranger(where)
            stack.push_async_callback(one.client.close, clean=False)
            old = OldSidecar(where, one)
            stack.push_async_callback(old.close)
            enrol = old.sealed(
                "Enrol",
                "proofbeat/enrol",
                instance=str(one.instance),
                key=keys.public_der(one.key.public_key()),
                join_token=await where.authority.create_token("web"),
            )
            fields = await old.post("/v1/enroll", enrol)
            one.enrolment = messages.decode(said("Enrolment", **fields)).message  # type: ignore[assignment] # it is one
            assert isinstance(one.enrolment, Enrolment)
            async with old.session() as socket:
                kind, nonce = await old.ask(socket, "AskNonce")
                one.nonce = Nonce(**nonce)
                signed = one.signed()
                kind, need = await old.ask(socket, "Attest", evidence=signed, bodies=[])
                assert kind == "Need"
                bodies = [{"digest": digest, "content": one.bodies()[digest]} for digest in need["digests"]]
                kind, answer = await old.ask(socket, "Attest", evidence=signed, bodies=bodies)
                assert (kind, answer["chain"] != "") == ("Answer", True)
                await where.authority.attest_now(one.instance)
                assert strict((await socket.receive()).data)[0] == "AttestNow"
                kind, _ = await old.ask(socket, "AskPolicy")
                assert kind == "PolicyChanged"
                kind, standing = await old.ask(socket, "Report", generation=1, violation_class="tamper")
                assert (kind, standing["quarantined"]) == ("Standing", True)
                await where.authority.release(one.instance)
                assert strict((await socket.receive()).data)[0] == "Released"
                kind, _ = await old.ask(socket, "Goodbye")
                assert kind == "Done"
            posted = old.sealed("Posted", "proofbeat/post", instance=str(one.instance), request=said("AskNonce"))
            assert (await old.post("/v1/challenge", posted)).keys() == told("Nonce").keys()

    asyncio.run(story())


@pytest.mark.parametrize(("minor", "stated"), [(2, False), (3, True)])
def test_the_certificate_that_is_served_is_stated_to_an_authority_that_knows_the_word_and_to_no_other(
    tmp_path: Path, minor: int, stated: bool
) -> None:
    async def story() -> None:
        authority = decent(tmp_path)
        authority.speaks = Version(1, minor)
        authority.spec |= {
            "layers": {"files": {}, "processes": {}, "proxy": {}},
            "proxy": {"requireReferenced": False},
        }
        authority.policy = authority.document()
        async with world(tmp_path, authority=authority) as made:
            await made.opened()
            issued = {serial_of(answer.chain) for answer in authority.answers}
            claims = authority.told[-1].claims
            assert Layer.PROXY in {each.layer for each in claims.layers}
            assert claims.served in issued if stated else claims.served is None

    asyncio.run(story())


class OldAuthority:
    """What an authority of 1.0 takes and says: any field that it does not know, it refuses."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/session", self._session), web.post("/{any:.*}", self._post)]

    async def _post(self, request: web.Request) -> web.Response:
        frame = cose.parse(await request.read(), most_bytes=MOST).payload
        try:
            kind, _, fields = strict(frame)
            if kind == "Posted":
                kind, _, fields = strict(fields["request"])
        except AssertionError as error:
            self.heard.append(f"not understood: {error}")
            document = recorded("problem+json").content.replace(b"token-invalid", b"malformed").replace(b"401", b"400")
            return web.Response(status=400, body=document, content_type="application/problem+json")
        self.heard.append(kind)
        return web.Response(body=self._answer(kind, 0), content_type="application/cbor")

    async def _session(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Proofbeat challenge="AAAA"'})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for received in socket:
            assert received.type is WSMsgType.BINARY
            try:
                kind, number, _ = strict(received.data)
            except AssertionError as error:
                self.heard.append(f"not understood: {error}")
                await socket.close(code=1002)
                break
            self.heard.append(kind)
            await socket.send_bytes(self._answer(kind, number))
        return socket

    def _answer(self, kind: str, number: int) -> bytes:
        reply = {
            "Enrol": "Enrolment",
            "AskNonce": "Nonce",
            "AskPolicy": "PolicyChanged",
            "Attest": "Answer",
            "Report": "Standing",
            "Goodbye": "Done",
        }[kind]
        return said(reply, number)


REPORT = Report(
    1, ViolationClass.TAMPER, "a foreign program ran", 1, kind="execution", subject="/tmp/x", rule="r", mend="m"
)


@pytest.mark.parametrize("session", [True, False], ids=["in a session", "by POST"])
def test_this_sidecar_lives_its_whole_life_under_an_authority_of_1_0(tmp_path: Path, session: bool) -> None:
    async def story() -> None:
        ca, old = made_ca(tmp_path), OldAuthority()
        async with listening(old.routes(), reserved(ca)) as url, asyncio.TaskGroup() as tasks:
            client = AuthorityClient(Endpoint(url, TRUST_DOMAIN, ca.bundle), lambda _: None, timeout=5.0)
            await client.enrol(JoinToken("t"), numbered(1), ec.generate_private_key(ec.SECP256R1()))
            holding = tasks.create_task(client.hold()) if session else None
            if session:
                await client.wait_connected()
            assert (await client.challenge()).valid_ms > 0
            attest = messages.decode(recorded("Attest").content).message
            assert isinstance(attest, Attest)
            assert (await client.attest(attest.evidence, lambda _: b"")).chain
            await client.report(REPORT)
            assert (await client.policy()).document
            await client.close()
            if holding is not None:
                holding.cancel()
        assert old.heard == ["Enrol", "AskNonce", "Attest", "Report", "AskPolicy", "Goodbye"]

    asyncio.run(story())


def test_an_authority_that_went_back_to_1_0_is_spoken_to_in_1_0(tmp_path: Path) -> None:
    """The first request by POST that it does not understand is made once more, in its own words."""

    async def story() -> None:
        ca, old = made_ca(tmp_path), OldAuthority()
        newer: list[bool] = [True]

        @web.middleware
        async def in_1_1_at_first(request: web.Request, handler: Any) -> web.StreamResponse:
            response: web.StreamResponse = await handler(request)
            if newer[0]:
                response.headers[versions.HEADER] = "1.1"
            return response

        async with listening(old.routes(), reserved(ca), (in_1_1_at_first,)) as url:
            client = AuthorityClient(Endpoint(url, TRUST_DOMAIN, ca.bundle), lambda _: None, timeout=5.0)
            await client.enrol(JoinToken("t"), numbered(1), ec.generate_private_key(ec.SECP256R1()))
            newer[0] = False
            await client.report(REPORT)
            await client.close()
        assert old.heard[1].startswith("not understood: Report")
        assert old.heard[2] == "Report"

    asyncio.run(story())


def test_what_1_1_added_reaches_an_authority_that_knows_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            await one.client.report(REPORT)
            (cause,) = (await where.authority.instance(one.instance)).causes
            assert cause.text == REPORT.cause
            told_of = json.dumps(await why(where, one))
            assert "/tmp/x" in told_of

    async def why(where: Town, one: Attester) -> Any:
        return str(await where.authority.why(str(one.instance)))

    asyncio.run(story())


def test_a_sidecar_without_a_version_in_common_reads_both_ranges(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            context = tls.client_context(where.where.bundle, where.where.trust_domain)
            headers = {versions.HEADER: "2.0-2.1"}
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
                for method, path in (("POST", "/v1/enroll"), ("GET", "/v1/session"), ("POST", "/v1/attest")):
                    async with http.request(method, where.where.url + path, headers=headers) as answer:
                        document = await answer.json(content_type="application/problem+json")
                        assert answer.status == 400
                        assert document["type"].endswith("/version-unsupported")
                        assert "2.0-2.1" in document["detail"]
                        assert str(versions.OURS) in document["detail"]

    asyncio.run(story())
