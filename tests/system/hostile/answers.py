"""Answers of a hostile authority to a request for a result, each with what the sidecar is to say of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attestation import jws
from attestation.evidence import Evidence
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector
from tests.system.hostile.authority import TRUST_DOMAIN, Asked, HostileAuthority, another_key
from tests.system.hostile.moves import SOMEBODY, Hostile, problem, silent
from wire import messages
from wire.messages import Answer, AskNonce, AttestNow, Done, Enrolment, Message, Need, Nonce, Standing
from wire.problems import Kind, Problem

NOBODY_ASKED = 1_000_000


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
    _leaf("a leaf with a mark that its result lacks", "marked otherwise than its result", mark="bg-" + "0" * 32),
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
        _instead(f"the problem {kind}", f"told {kind}. Mend it.", problem(kind, status))
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


LISTS = (
    _altered(
        "an answer that speaks of a list that nobody gives",
        "older than version 9",
        lambda answer: replace(answer, revocation_version=9),
    ),
)

EVERY = (*RESULTS, *LEASES, *LEAVES, *INSTEAD, *FRAMES, *NONCES, *LISTS, *DROPPED)
"""After each of these the sidecar is where it was before: nothing opens, and what is open runs on to its end."""
