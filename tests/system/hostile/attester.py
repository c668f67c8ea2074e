"""A hostile attester: enrolled like any other, with a key of its own, and it sends what it likes.

Each move ends in the authority's refusal; what it is refused with is in ATTACKS. An honest neighbour under the same
authority is not to notice.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import cose, evidence, keys
from attestation.claims import Claims
from attestation.errors import Refused
from attestation.layers import Layer
from attestation.tally import Tally
from attestation.violation import ViolationClass
from tests.system.authority.town import Attester, Town, another_key, measured, numbered, posted, stranger
from wire import messages, problems, proofs, tls, versions
from wire.messages import AskNonce, Attest, Body, Enrol, Hello, Posted, Report
from wire.problems import Kind
from wire.proofs import Purpose
from wire.session import JoinToken, Ticket


@dataclass(frozen=True)
class Hostile:
    """An enrolled attester gone bad, and where it is."""

    where: Town
    one: Attester

    async def attest(self, signed: bytes, *bodies: Body) -> None:
        await posted(self.where, self.one, Attest(signed, bodies))

    async def claiming(self, change: Callable[[Claims], Claims]) -> None:
        await self.attest(self.one.signed(change))

    async def raw(self, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> None:
        """One HTTP request, whatever it is."""
        context = tls.client_context(self.where.where.bundle, self.where.where.trust_domain)
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http,
            http.request(method, self.where.where.url + path, data=body, headers=headers) as answer,
        ):
            assert answer.content_type == problems.MEDIA_TYPE, answer.status
            document = problems.from_json(await answer.read())
            assert (document.type, document.status) == (problems.BASE + document.kind, answer.status)
            assert document.detail
            raise problems.error_of(document)


Attack = Callable[[Hostile], Awaitable[None]]


async def _cloned(it: Hostile) -> None:
    """Two attesters with one key, over one nonce."""
    nonce = it.one.nonce
    await it.one.round()
    it.one.nonce = nonce
    await it.claiming(lambda claims: replace(claims, boot_id="another machine"))


async def _after_a_clone(it: Hostile) -> None:
    with suppress(Refused):
        await _cloned(it)
    it.one.nonce = await it.one.client.challenge()
    await it.one.round()


async def _replayed(it: Hostile) -> None:
    """Genuine, and answered once: a quarantine takes even that answer back."""
    signed = it.one.signed()
    await it.one.send(signed)
    await it.where.authority.quarantine(it.one.instance, "by order")
    await it.attest(signed)


async def _reordered(it: Hostile) -> None:
    earlier = it.one.signed()
    it.one.nonce = await it.one.client.challenge()
    await it.one.round()
    await it.attest(earlier)


async def _stale(it: Hostile) -> None:
    it.where.clock.ahead = 30.0
    await it.attest(it.one.signed())


async def _of_the_future(it: Hostile) -> None:
    it.where.clock.ahead = 30.0
    it.one.nonce = await it.one.client.challenge()
    it.where.clock.ahead = 0.0
    await it.attest(it.one.signed())


async def _flipped(it: Hostile) -> None:
    signed = bytearray(it.one.signed())
    signed[-1] ^= 1
    await it.attest(bytes(signed))


async def _somebodys_nonce(it: Hostile) -> None:
    other = stranger(it.where, 77)
    await other.enrol(JoinToken(await it.where.authority.create_token("web")))
    await other.client.close(clean=False)
    it.one.nonce = other.nonce
    await it.attest(it.one.signed())


async def _made_up_nonce(it: Hostile) -> None:
    it.one.nonce = replace(it.one.held, value=bytes(61))
    await it.attest(it.one.signed())


async def _before_the_report(it: Hostile) -> None:
    """A good measurement from before the violation that it reported itself."""
    signed = it.one.signed()
    await it.one.client.report(Report(1, ViolationClass.DRIFT, "a file changed", 1))
    await it.attest(signed)


async def _old_policy(it: Hostile) -> None:
    await it.claiming(lambda claims: replace(claims, policy_epoch=0))


async def _own_key_as_leaf(it: Hostile) -> None:
    await it.claiming(lambda claims: replace(claims, leaf_key=keys.public_der(it.one.key.public_key())))


async def _twice_a_layer(it: Hostile) -> None:
    await it.claiming(lambda claims: replace(claims, layers=claims.layers * 2))


async def _other_body(it: Hostile) -> None:
    signed, digest = it.one.signed(), next(iter(it.one.bodies()))
    await it.attest(signed, Body(digest, b"another"))


async def _lying_body(it: Hostile) -> None:
    """A body that hashes right and is no layer."""
    it.one.layers = {**measured(), Layer.FILES: b"\xff" * 10}
    signed = it.one.signed()
    await it.attest(signed, *(Body(digest, body) for digest, body in it.one.bodies().items()))


async def _unsigned_post(it: Hostile) -> None:
    await posted(it.where, another_key(it.one), AskNonce())


async def _for_somebody_else(it: Hostile) -> None:
    sealed = proofs.seal(Posted(numbered(4242), messages.encode(AskNonce())), Purpose.POST, it.one.key)
    await it.raw("/v1/challenge", sealed)


async def _stolen_ticket(it: Hostile) -> None:
    thief = stranger(it.where, 78)
    try:
        await thief.enrol(Ticket(it.one.known.ticket))
    finally:
        await thief.client.close(clean=False)


async def _used_token(it: Hostile) -> None:
    token = await it.where.authority.create_token("web")
    for number in (79, 80):
        other = stranger(it.where, number)
        try:
            await other.enrol(JoinToken(token))
        finally:
            await other.client.close(clean=False)


async def _enrols_anothers_key(it: Hostile) -> None:
    public = keys.public_der(ec.generate_private_key(ec.SECP256R1()).public_key())
    await it.raw("/v1/enroll", proofs.seal(Enrol(numbered(81), public, join_token="t"), Purpose.ENROL, it.one.key))


async def _made_up_challenge(it: Hostile) -> None:
    proof = proofs.seal(Hello(it.one.instance, b"made up"), Purpose.SESSION, it.one.key)
    await it.raw("/v1/session", b"", _proof(proof), method="GET")


def _proof(sealed: bytes) -> dict[str, str]:
    return {"Authorization": "Proofbeat " + base64.urlsafe_b64encode(sealed).decode()}


def _claim(**changes: object) -> Attack:
    return lambda it: it.claiming(lambda claims: replace(claims, **changes))  # type: ignore[arg-type] # by name


def _bytes(data: Callable[[Attester], bytes]) -> Attack:
    return lambda it: it.attest(data(it.one))


def _raw(path: str, body: bytes, headers: dict[str, str] | None = None) -> Attack:
    return lambda it: it.raw(path, body, headers)


ATTACKS: dict[str, tuple[Attack, Kind]] = {
    "two attesters with one key, the same sequence and other evidence": (_cloned, Kind.EVIDENCE_CLONED),
    "a round after a clone was found": (_after_a_clone, Kind.INSTANCE_QUARANTINED),
    "evidence replayed after a quarantine": (_replayed, Kind.INSTANCE_QUARANTINED),
    "two rounds in the wrong order": (_reordered, Kind.NONCE_PASSED),
    "a nonce that has grown stale": (_stale, Kind.NONCE_STALE),
    "a nonce of the future": (_of_the_future, Kind.NONCE_STALE),
    "somebody else's nonce": (_somebodys_nonce, Kind.NONCE_FOREIGN),
    "a nonce made up": (_made_up_nonce, Kind.NONCE_FORGED),
    "half of the evidence": (_bytes(lambda one: one.signed()[:200]), Kind.EVIDENCE_MALFORMED),
    "evidence and a byte": (_bytes(lambda one: one.signed() + b"\0"), Kind.EVIDENCE_MALFORMED),
    "evidence nested ten thousand times": (_bytes(lambda _: b"\xd2" + b"\x81" * 10_000), Kind.EVIDENCE_MALFORMED),
    "evidence larger than any": (
        _bytes(lambda one: cose.sign1(bytes(evidence.MOST_BYTES), one.key)),
        Kind.EVIDENCE_MALFORMED,
    ),
    "a key twice in one map": (
        _bytes(lambda one: cose.sign1(b"\xa2\x06\x01\x06\x02", one.key)),
        Kind.EVIDENCE_MALFORMED,
    ),
    "a flipped bit in the signature": (_flipped, Kind.EVIDENCE_SIGNATURE),
    "evidence signed by another key": (_bytes(lambda one: another_key(one).signed()), Kind.EVIDENCE_KEY),
    "evidence of another instance": (_claim(instance=numbered(9)), Kind.EVIDENCE_INSTANCE),
    "another sequence than the nonce's": (_claim(sequence=1), Kind.SEQUENCE_MISMATCH),
    "evidence from before a violation": (_before_the_report, Kind.GENERATION_PAST),
    "a lower policy epoch": (_old_policy, Kind.POLICY_EPOCH_STALE),
    "no leaf key": (_claim(leaf_key=b""), Kind.LEAF_KEY),
    "the evidence key as leaf key": (_own_key_as_leaf, Kind.LEAF_KEY),
    "a generation below zero": (_claim(generation=-1), Kind.GENERATION_PAST),
    "a revocation below zero": (_claim(revocation=-1), Kind.CLAIMS_IMPOSSIBLE),
    "a served certificate and no proxy": (_claim(served=7), Kind.CLAIMS_IMPOSSIBLE),
    "calls counted and no layer of them": (_claim(calls=Tally((1,))), Kind.CLAIMS_IMPOSSIBLE),
    "a layer claimed twice": (_twice_a_layer, Kind.CLAIMS_IMPOSSIBLE),
    "another body than was claimed": (_other_body, Kind.BODY_MISMATCH),
    "a body that is no layer": (_lying_body, Kind.EVIDENCE_MALFORMED),
    "a post that its key did not sign": (_unsigned_post, Kind.PROOF_INVALID),
    "a post for somebody else": (_for_somebody_else, Kind.INSTANCE_UNKNOWN),
    "a session over a challenge made up": (_made_up_challenge, Kind.PROOF_INVALID),
    "an enrolment of somebody else's key": (_enrols_anothers_key, Kind.PROOF_INVALID),
    "a stolen ticket": (_stolen_ticket, Kind.TICKET_INVALID),
    "a token used twice": (_used_token, Kind.TOKEN_USED),
    "a body that is no message": (_raw("/v1/attest", b"\xff" * 100), Kind.MALFORMED),
    "a body of a megabyte where none belongs": (_raw("/v1/report", bytes(1 << 20)), Kind.TOO_LARGE),
    "a round of forty megabytes": (_raw("/v1/attest", bytes(40 << 20)), Kind.TOO_LARGE),
    "a version of tomorrow": (
        _raw("/v1/challenge", b"", {versions.HEADER: "2.0-2.3"}),
        Kind.VERSION_UNSUPPORTED,
    ),
    "a version that does not parse": (_raw("/v1/challenge", b"", {versions.HEADER: "new"}), Kind.MALFORMED),
    "a path that is not there": (_raw("/v1/admin/release", b""), Kind.NOT_FOUND),
}


class HalfOpen:
    """Connections that are begun and not gone on with, each in one of three ways."""

    def __init__(self, where: Town) -> None:
        host, _, port = where.where.url.removeprefix("https://").rpartition(":")
        self._address = host, int(port)
        self._tls = tls.client_context(where.where.bundle, where.where.trust_domain)
        self._writers: list[asyncio.StreamWriter] = []
        self._readers: list[asyncio.StreamReader] = []
        self._said: list[bytes] = []

    async def open(self, count: int) -> None:
        for number in range(count):
            with suppress(OSError):  # thrown out during the handshake, as it may be
                await self._one(number % 3)

    @property
    def standing(self) -> int:
        """How many the other side has not ended."""
        return sum(not reader.at_eof() for reader in self._readers)

    async def _one(self, way: int) -> None:
        context: ssl.SSLContext | None = None if way == 0 else self._tls
        reader, writer = await asyncio.open_connection(*self._address, ssl=context)
        self._readers.append(reader)
        self._writers.append(writer)
        if way == 1:  # half a head
            writer.write(b"POST /v1/attest HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        if way == 2:  # a head, and a body that is long in coming
            writer.write(b"POST /v1/attest HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n\0")

    async def ended(self) -> None:
        """Until the other side has ended every one."""
        for reader in self._readers:
            with suppress(ConnectionError):
                self._said.append(await reader.read())

    def heard(self, part: bytes) -> bool:
        """Was this among what was said at the end?"""
        return any(part in said for said in self._said)

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
