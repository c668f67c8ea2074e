"""What a hostile authority does with a request for a result, each move with what the sidecar is to say of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attestation import jws, release
from attestation.errors import InvalidInput
from attestation.evidence import Evidence
from attestation.instance import InstanceId
from attestation.release import ReleaseOrder
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector
from authority.issuer.ca import Ca
from tests.system.hostile.authority import (
    TRUST_DOMAIN,
    Asked,
    HostileAuthority,
    Move,
    another_key,
    made_ca,
)
from wire import messages, problems
from wire.messages import (
    Answer,
    AskNonce,
    AttestNow,
    Denials,
    Denied,
    DeniedLeaf,
    Done,
    Enrolment,
    Message,
    Need,
    Nonce,
    PolicyChanged,
    Push,
    Released,
    Standing,
)
from wire.problems import Kind, Problem

SOMEBODY = InstanceId("i-" + "5" * 32)
NOBODY_ASKED = 1_000_000


@dataclass(frozen=True)
class Hostile:
    """event: the log line that follows, and a part of what it says."""

    name: str
    move: Move
    says: str
    event: str = "round-failed"

    def __str__(self) -> str:
        return self.name


def _forged(name: str, says: str, forge: Callable[[HostileAuthority, Evidence], Answer]) -> Hostile:
    async def move(authority: HostileAuthority, asked: Asked) -> None:
        await asked.send(asked.frame(forge(authority, asked.told)))

    return Hostile(name, move, says)


def _result(name: str, says: str, **changes: Any) -> Hostile:
    """A genuine signature under a result about something else."""

    def forge(authority: HostileAuthority, told: Evidence) -> Answer:
        made = {key: value(told) if callable(value) else value for key, value in changes.items()}
        return authority.answer(told, replace(authority.result(told), **made))

    return _forged(name, says, forge)


def _leaf(name: str, says: str, **changes: Any) -> Hostile:
    def forge(authority: HostileAuthority, told: Evidence) -> Answer:
        return authority.answer(told, **{key: value() if callable(value) else value for key, value in changes.items()})

    return _forged(name, says, forge)


def _altered(name: str, says: str, alter: Callable[[Answer], Answer]) -> Hostile:
    return _forged(name, says, lambda authority, told: alter(authority.answer(told)))


def _instead(name: str, says: str, message: Message) -> Hostile:
    async def move(_: HostileAuthority, asked: Asked) -> None:
        await asked.send(asked.frame(message))

    return Hostile(name, move, says)


def _bytes(name: str, alter: Callable[[bytes], bytes], says: str = "an answer that does not parse") -> Hostile:
    """What is no message ends the session; the same request then goes by POST, and finds no better."""

    async def move(_: HostileAuthority, asked: Asked) -> None:
        await asked.send(alter(asked.frame(asked.honest)))

    return Hostile(name, move, says)


def _problem(kind: Kind, status: int) -> Problem:
    return Problem(problems.BASE + kind, "T", status, f"told {kind}", "somewhere", "Mend it.")


async def _replayed(authority: HostileAuthority, asked: Asked) -> None:
    await asked.send(asked.frame(authority.answers[-1] if authority.answers else asked.honest))


def _another_signer(authority: HostileAuthority, told: Evidence) -> Answer:
    return authority.answer(told, signer=jws.Signer(another_key()))


def _bitflipped(authority: HostileAuthority, told: Evidence) -> Answer:
    answer = authority.answer(told)
    head, _, signature = answer.ear.rpartition(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    return replace(answer, ear=f"{head}.{flipped}")


def _other_policys(authority: HostileAuthority, told: Evidence) -> Answer:
    """A policy document is signed by the same key, and is no result."""
    return replace(authority.answer(told), ear=authority.policy)


def _last_leaf(authority: HostileAuthority, told: Evidence) -> Answer:
    """Genuine in every part, but the leaf is the one of the round before."""
    answer = authority.answer(told)
    before = authority.answers[-1].chain if authority.answers else ""
    return replace(answer, chain=before or authority.chain(told, authority.result(told), "another result"))


def _no_names(authority: HostileAuthority, told: Evidence) -> Answer:
    """A CA's certificate: it parses, and names nobody."""
    return replace(authority.answer(told), chain=authority.ca.bundle)


def _better_than_its_vector(authority: HostileAuthority, told: Evidence) -> Answer:
    result = replace(authority.result(told), vector=TrustVector(executables=96))
    return authority.answer(told, result)


def _gone_by_then(told: Evidence) -> int:
    return int(time.time()) - 1


RESULTS = (
    _result("a result for another nonce", "another nonce", nonce=secrets.token_bytes(61)),
    _result("a result for another instance", "another instance", instance=SOMEBODY),
    _result("a result for another identity", "another SPIFFE ID", spiffe_id=SpiffeId(TRUST_DOMAIN, "/api")),
    _result(
        "a result for the authority itself",
        "another SPIFFE ID",
        spiffe_id=SpiffeId(TRUST_DOMAIN, "/proofbeat/authority"),
    ),
    _result(
        "a result for an earlier generation", "another generation", generation=lambda told: told.claims.generation - 1
    ),
    _result(
        "a result for a later generation", "another generation", generation=lambda told: told.claims.generation + 1
    ),
    _result("a result under a lower policy epoch", "another policy epoch", policy_epoch=1),
    _result("a result of observe", "another mode", mode="observe"),
    _result("a result that has ended", "it ended", expires_at=_gone_by_then),
    _forged("a result signed by another key", "does not verify", _another_signer),
    _forged("a result with a flipped bit", "does not verify", _bitflipped),
    _forged("a policy in a result's place", "no eat+jwt", _other_policys),
    _forged("a status better than its vector", "better than the worst claim", _better_than_its_vector),
    Hostile("the answer to the round before", _replayed, "another nonce"),
)
LEASES = (
    _altered("a lease of a year", "where policy grants", lambda answer: replace(answer, lease_ms=365 * 86_400_000)),
    _altered(
        "a lease that was issued tomorrow",
        "outlives its result",
        lambda a: replace(a, issued_ms=a.issued_ms + 86_400_000),
    ),
)
LEAVES = (
    _leaf("a leaf for another key", "for another key", key=lambda: another_key().public_key()),
    _leaf("a leaf for another identity", "for another identity", identity=SpiffeId(TRUST_DOMAIN, "/api")),
    _leaf("a leaf for the authority", "for another identity", identity=SpiffeId.authority(TRUST_DOMAIN)),
    _leaf("a leaf that outlives its result", "valid for longer", end=lambda: time.time() + 3600),
    _leaf("a leaf of tomorrow", "not valid yet", start=lambda: time.time() + 3600, end=lambda: time.time() + 7200),
    _leaf("a leaf around another result", "around another result", ear="another.result.altogether"),
    _forged("the leaf of the round before", "around another result", _last_leaf),
    _forged("a certificate without a name", "does not parse", _no_names),
    _altered(
        "a chain that is no PEM", "does not parse", lambda answer: replace(answer, chain="-----BEGIN NOTHING-----")
    ),
    _altered("a chain of a megabyte", "does not parse", lambda answer: replace(answer, chain=answer.chain * 300)),
)
INSTEAD = (
    *(
        _instead(f"{type(message).__name__} for an answer", says, message)
        for message, says in (
            (Done(), "Done where Answer belongs"),
            (Standing(False, ()), "Standing where Answer belongs"),
            (Nonce(b"n" * 61, 1, 1, 1, False), "Nonce where Answer belongs"),
            (Enrolment("", "", Nonce(b"", 0, 0, 0, False), "", 9, "", b"", Standing(False, ())), "Enrolment where"),
            (AttestNow(Nonce(b"", 0, 0, 0, False)), "AttestNow as an answer"),
            (AskNonce(), "AskNonce as an answer"),
            (Need(("ab" * 32,)), "which this round does not claim"),
        )
    ),
    *(
        _instead(f"the problem {kind}", f"told {kind}. Mend it.", _problem(kind, status))
        for kind, status in (
            (Kind.NONCE_STALE, 409),
            (Kind.UNAVAILABLE, 503),
            (Kind.INTERNAL, 500),
        )
    ),
    _instead("a problem that nobody knows", "told", Problem("https://else.example/x", "T", 0, "told", "", "")),
)


async def _unasked(authority: HostileAuthority, asked: Asked) -> None:
    """An affirming answer to a question never put; the one that was put gets none."""
    if asked.socket is None:
        await silent(authority, asked)
        return
    await asked.send(asked.frame(authority.answer(asked.told), NOBODY_ASKED))
    await asked.send(asked.frame(Done()))


async def _as_a_push(authority: HostileAuthority, asked: Asked) -> None:
    if asked.socket is None:
        await silent(authority, asked)
        return
    await asked.send(asked.frame(authority.answer(asked.told), messages.PUSH))


async def _text(_: HostileAuthority, asked: Asked) -> None:
    if asked.socket is None:
        await asked.send(b"text")
    else:
        await asked.socket.send_str("not binary")


async def _oversized(_: HostileAuthority, asked: Asked) -> None:
    """Sent in the background: the client hangs up long before the end."""
    try:
        await asked.send(bytes(messages.MOST_FRAME + 1))
    except ConnectionError:
        return


async def _hung_up(_: HostileAuthority, asked: Asked) -> None:
    if asked.socket is None:
        await asked.send(b"")
    else:
        await asked.socket.close()


FRAMES = (
    Hostile("an answer to a question never put", _unasked, "Done where Answer belongs"),
    _bytes("half an answer", lambda frame: frame[: len(frame) // 2]),
    _bytes("an answer and a byte", lambda frame: frame + b"\0"),
    _bytes("nothing", lambda frame: b""),
    _bytes("nested a hundred thousand times", lambda frame: b"\x81" * 100_000),
    Hostile("an answer as a push", _as_a_push, "told unavailable"),
    Hostile("text", _text, "an answer that does not parse"),
    Hostile("a frame larger than any", _oversized, "larger than any message"),
    Hostile("a session that ends", _hung_up, "an answer that does not parse"),
)


def _next_nonce(name: str, change: Callable[[Nonce], Nonce], says: str) -> Hostile:
    """A good answer whose prefetched nonce is bad: this round counts, the next one does not."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        asked.honest = replace(asked.honest, nonce=change(asked.honest.nonce))
        authority.gives(asked)
        await asked.send(asked.frame(asked.honest))

    return Hostile(name, move, says)


async def _same_nonce_again(authority: HostileAuthority, asked: Asked) -> None:
    """As if this round had not been: the same nonce under a new number."""
    again = replace(asked.honest.nonce, value=asked.told.nonce)
    asked.honest = replace(asked.honest, nonce=again)
    authority.gives(asked)
    await asked.send(asked.frame(asked.honest))


NONCES = (
    _next_nonce(
        "a nonce of a megabyte", lambda nonce: replace(nonce, value=bytes(1 << 20)), "a nonce of 1048576 bytes"
    ),
    _next_nonce("an empty nonce", lambda nonce: replace(nonce, value=b""), "a nonce of 0 bytes"),
    Hostile("the same nonce again", _same_nonce_again, "for the second time"),
)

DROPPED = (
    Hostile(
        "an answer that affirms nothing",
        _result("", "", status=Tier.NONE, vector=TrustVector()).move,
        "gives no identity",
        event="result-dropped",
    ),
)


@dataclass(frozen=True)
class Pushed:
    """What the authority says unasked, and a part of what the sidecar says to that."""

    name: str
    make: Callable[[HostileAuthority], Push]
    says: str
    event: str = "push-refused"

    def __str__(self) -> str:
        return self.name


def _policy(name: str, says: str, **changes: Any) -> Pushed:
    """A newer epoch, and laxer, but for what makes it unacceptable."""

    def make(authority: HostileAuthority) -> Push:
        lax = {**authority.spec, "mode": "observe"}
        made = {"epoch": authority.epoch + 1, "spec": lax, **changes}
        return PolicyChanged(authority.epoch + 1, authority.document(**made))

    return Pushed(name, make, says)


def _field(authority: HostileAuthority) -> Push:
    spec = {**authority.spec, "mode": "observe", "leniency": "all"}
    return PolicyChanged(authority.epoch + 1, authority.document(epoch=authority.epoch + 1, spec=spec))


def _dialect(authority: HostileAuthority) -> Push:
    policy = {"apiVersion": "proofbeat.dev/v2", "kind": "AttestationPolicy", "metadata": {"name": "web"}}
    return PolicyChanged(authority.epoch + 1, authority.document(epoch=authority.epoch + 1, policy=policy))


def _foreign(authority: HostileAuthority) -> Push:
    document = authority.document(jws.Signer(another_key()), epoch=authority.epoch + 1)
    return PolicyChanged(authority.epoch + 1, document)


def _same_epoch(authority: HostileAuthority) -> Push:
    lax = {**authority.spec, "mode": "observe"}
    return PolicyChanged(authority.epoch, authority.document(spec=lax))


def order(instance: InstanceId | None, *causes: str, foreign: bool = False) -> Callable[[HostileAuthority], str]:
    """A release of these causes. instance: None for the sidecar's own. foreign: signed by somebody else."""

    def make(authority: HostileAuthority) -> str:
        released = ReleaseOrder(instance or authority.enrolled or SOMEBODY, causes, int(time.time()))
        return release.sign(released, jws.Signer(another_key()) if foreign else authority.signer)

    return make


def _released(instance: InstanceId | None, *, foreign: bool = False) -> Callable[[HostileAuthority], Push]:
    return lambda authority: Released(order(instance, "c-1", foreign=foreign)(authority))


def _list(name: str, says: str, make: Callable[[HostileAuthority], Denials]) -> Pushed:
    return Pushed(name, make, says)


def _naming(fingerprint: str) -> Denied:
    leaf = DeniedLeaf(b"\x07", fingerprint, 0)
    return Denied(SOMEBODY, f"spiffe://{TRUST_DOMAIN}/api", "c-0", (leaf,), ())


def _another_ca() -> Ca:
    with TemporaryDirectory() as folder:
        return made_ca(Path(folder))


PUSHES = (
    _list("a list whose CRL another CA signed", "another authority", lambda one: one.denials(1, ca=_another_ca())),
    _list("a list without a CRL", "a CRL that does not parse", lambda _: Denials(1, (), b"")),
    _list("a list whose CRL names nobody of it", "other certificates", lambda one: one.denials(1, _naming("0" * 64))),
    _list(
        "a list with a fingerprint that no filter finds",
        "what no certificate has",
        lambda one: one.denials(1, _naming("A" * 64), serials=(7,)),
    ),
    _policy("a policy of a lower epoch", "policy epoch 1 after 5", epoch=1),
    _policy(
        "the policy of another identity",
        f"the policy of spiffe://{TRUST_DOMAIN}/api",
        identity=f"spiffe://{TRUST_DOMAIN}/api",
    ),
    _policy("a policy with a part too many", "does not understand: it has the parts", also={}),
    _policy("a policy whose epoch is infinite", "does not understand", epoch=float("inf")),
    Pushed("a policy with an unknown field", _field, "does not understand: AttestationPolicy.spec.leniency"),
    Pushed("a policy in another dialect", _dialect, "does not understand: AttestationPolicy.apiVersion"),
    Pushed("a policy signed by another key", _foreign, "does not verify"),
    Pushed("another policy under the same epoch", _same_epoch, "another policy under the same epoch 5"),
    Pushed("a policy that is none", lambda _: PolicyChanged(9, "none"), "does not verify"),
    Pushed("a release signed by another key", _released(None, foreign=True), "does not verify"),
    Pushed("a release that is none", lambda _: Released("none"), "does not verify"),
    Pushed("a release of another instance", _released(SOMEBODY), "names no cause", event="result-dropped"),
)
"""What was in force stays so."""

LISTS = (
    _altered(
        "an answer that speaks of a list that nobody gives",
        "older than version 9",
        lambda answer: replace(answer, revocation_version=9),
    ),
)

EVERY = (*RESULTS, *LEASES, *LEAVES, *INSTEAD, *FRAMES, *NONCES, *LISTS, *DROPPED)
"""After each of these the sidecar is where it was before: nothing opens, and what is open runs on to its end."""


def flipped(position: float, bit: int) -> Hostile:
    """One bit of an otherwise good answer, anywhere. A flip that leaves the answer good leaves it honest."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        frame = bytearray(asked.frame(asked.honest))
        frame[int(position * len(frame))] ^= 1 << bit
        if _still_good(authority, asked, bytes(frame)):
            authority.gives(asked)
        await asked.send(bytes(frame))

    return Hostile(f"bit {bit} at {position:.3f}", move, "")


def _still_good(authority: HostileAuthority, asked: Asked, frame: bytes) -> bool:
    """Does it say the same of what an identity hangs on? Then only its next nonce, or a number, was touched."""
    try:
        message = messages.decode(frame).message
        return isinstance(message, Answer) and (message.ear, message.chain) == (asked.honest.ear, asked.honest.chain)
    except InvalidInput:
        return False


def held_until(released: asyncio.Event) -> Move:
    """What would have been an honest answer, but late: it comes after whatever released it."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        authority.asking.set()
        await released.wait()
        await asked.send(asked.frame(asked.honest))

    return move


def twice(second: Callable[[HostileAuthority, Evidence], Answer]) -> Move:
    """An honest answer, and another one under the same number."""

    async def move(authority: HostileAuthority, asked: Asked) -> None:
        authority.gives(asked)
        await asked.send(asked.frame(asked.honest))
        if asked.socket is not None:
            await asked.send(asked.frame(second(authority, asked.told)))

    return move


async def silent(_: HostileAuthority, asked: Asked) -> None:
    """No answer on a session; by POST one that says to come back later."""
    if asked.socket is None:
        await asked.send(asked.frame(_problem(Kind.UNAVAILABLE, 503)))


def contraindicated(authority: HostileAuthority, told: Evidence) -> Answer:
    result: Result = replace(
        authority.result(told),
        status=Tier.CONTRAINDICATED,
        vector=TrustVector(executables=96),
        reasons=("file-modified: /srv/x is not as referenced",),
    )
    return authority.answer(told, result)
