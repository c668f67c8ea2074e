"""What the verifier has seen before: bodies by their digest, appraisals by everything they depend on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

from attestation import manifest, parts
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.layers import Layer
from authority.rules import Ruling
from policies.appraise.files import Files
from policies.appraise.reasons import Verdict
from policies.appraise.summary import seen_ages, seen_pace, sees_pace

MOST_BODY_BYTES = 64 * 1024 * 1024
MOST_APPRAISALS = 20_000


class _Part(NamedTuple):
    """Where a part lies: in which body, from where to where."""

    body: Digest
    start: int
    end: int


class Bodies:
    """Packed layers in memory, the least recently used dropped first. A scope never sees another's."""

    def __init__(self, most_bytes: int = MOST_BODY_BYTES) -> None:
        self._most = most_bytes
        self._held: OrderedDict[tuple[str, Digest], bytes] = OrderedDict()
        self._size = 0
        self._parts: dict[tuple[str, Digest], _Part] = {}
        self._outlines: dict[tuple[str, Digest], list[Digest]] = {}
        self._uncut: dict[tuple[str, Digest], None] = {}

    def has_parts(self, scope: str) -> bool:
        """Is anything held that another body may have parts in common with? Only then is it cut."""
        for key in [key for key in self._uncut if key[0] == scope]:
            del self._uncut[key]
            self._index(key, [(parts.digest(each), len(each)) for each in parts.cut(self._held[key])])
        return any(known == scope for known, _ in self._outlines)

    def part(self, scope: str, digest: Digest) -> bytes | None:
        """A part (attestation/parts.py) of some body."""
        place = self._parts.get((scope, digest))
        return self._held[scope, place.body][place.start : place.end] if place is not None else None

    def get(self, scope: str, digest: Digest) -> bytes | None:
        body = self._held.get((scope, digest))
        if body is not None:
            self._held.move_to_end((scope, digest))
        return body

    def put(
        self,
        scope: str,
        digest: Digest,
        body: bytes,
        *,
        in_parts: bool = False,
        outline: Sequence[tuple[Digest, int]] = (),
    ) -> None:
        """One that would fill everything is not kept: its round has it, and that will do.

        in_parts: it is a manifest of files, others of which may be sent by what differs. outline: its parts' digests
        and lengths, where they are known.
        """
        if len(body) > self._most // 2 or (scope, digest) in self._held:
            return
        self._held[scope, digest] = body
        self._size += len(body)
        if outline:
            self._index((scope, digest), outline)
        elif in_parts and len(body) >= parts.LEAST_ENTRIES * manifest.HEAD.size:
            self._uncut[scope, digest] = None
        while self._size > self._most:
            key, dropped = self._held.popitem(last=False)
            self._size -= len(dropped)
            self._forget(key)

    def _index(self, key: tuple[str, Digest], outline: Sequence[tuple[Digest, int]]) -> None:
        (scope, digest), start = key, 0
        for part, length in outline:
            self._parts[scope, part] = _Part(digest, start, start + length)
            start += length
        self._outlines[key] = [part for part, _ in outline]

    def _forget(self, key: tuple[str, Digest]) -> None:
        """Parts that a later body has as well are of that one by now."""
        scope, digest = key
        self._uncut.pop(key, None)
        for each in self._outlines.pop(key, ()):
            place = self._parts.get((scope, each))
            if place is not None and place.body == digest:
                del self._parts[scope, each]


class Appraisals:
    """Verdicts by what they were made from. Nonces, signatures and quarantines are no part of that: never cached."""

    def __init__(self, most: int = MOST_APPRAISALS) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, Verdict] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: Hashable) -> Verdict | None:
        verdict = self._held.get(key)
        if verdict is None:
            self.misses += 1
            return None
        self.hits += 1
        self._held.move_to_end(key)
        return verdict

    def put(self, key: Hashable, verdict: Verdict) -> None:
        self._held[key] = verdict
        while len(self._held) > self._most:
            self._held.popitem(last=False)


class Clean:
    """Of each ruling, the latest files layer in which nothing was found: what the next one is compared with.

    Bounded by the bytes of all of them; who has been asked for the longest ago is dropped first.
    """

    def __init__(self, most_bytes: int = MOST_BODY_BYTES) -> None:
        self._most = most_bytes
        self._held: OrderedDict[Digest, Files] = OrderedDict()
        self._size = 0

    def of(self, ruling: Ruling) -> Files | None:
        files = self._held.get(ruling.digest)
        if files is not None:
            self._held.move_to_end(ruling.digest)
        return files

    def learn(self, claims: Claims, bodies: Mapping[Digest, bytes], ruling: Ruling, verdict: Verdict) -> None:
        """A verdict that says anything of files, be it only that they are old, teaches nothing."""
        body = next((bodies.get(each.digest) for each in claims.layers if each.layer is Layer.FILES), None)
        if body is None or any(reason.layer is Layer.FILES for reason in verdict.reasons):
            return
        before = self._held.pop(ruling.digest, None)
        self._held[ruling.digest] = Files(body)
        self._size += len(body) - (len(before.body) if before is not None else 0)
        while self._size > self._most:
            _, dropped = self._held.popitem(last=False)
            self._size -= len(dropped.body)


def appraisal_key(claims: Claims, ruling: Ruling, issued: Collection[int] = ()) -> Hashable:
    """Layers, coverage and rules; and of what changes every time, whether it is as it should be.

    Of ages: is each within policy's bounds? So an age that passes its bound is appraised anew, though the sentence
    about it may name the age it had first. Where policy has rules, ages also as those see them
    (policies/appraise/summary.py), and how fast calls are made where one looks at that. Of the certificate that is
    served: is it one of `issued`?
    """
    ages = tuple(_within(claims, ruling))
    rules = ruling.policy.spec.rules
    seen = tuple(map(seen_ages, claims.layers)) if rules else ()
    pace = seen_pace(claims) if sees_pace(rules.values()) else ()
    layers = tuple((claim.layer, claim.digest) for claim in claims.layers)
    served = None if claims.served in issued else claims.served
    return layers, claims.coverage, ages, seen, pace, served, ruling.digest


def _within(claims: Claims, ruling: Ruling) -> list[tuple[bool, bool]]:
    bounds = ruling.policy.spec.layer
    return [
        (claim.age_ms <= bound.max_age * 1000, claim.full_age_ms <= bound.full_max_age * 1000)
        for claim in claims.layers
        for bound in (bounds(claim.layer),)
    ]
