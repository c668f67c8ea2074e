"""What an authority asks of a body that it has not seen, and what comes over the wire for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from attestation import manifest, parts
from attestation.claims import LayerClaim
from attestation.digests import Digest
from attestation.errors import MalformedEvidence, Refused
from attestation.layers import Layer, Method
from attestation.manifest import FILE, Entry
from authority.verifier import need
from authority.verifier.cache import Bodies
from tests.unit.attestation.world import CLAIMS
from wire import messages
from wire.messages import Attest, Body, Need, Outline
from wire.session import with_needed
from wire.versions import Version

SCOPE = "web"
FILES = {f"/srv/app/{number // 100}/{number}": "a" * 64 for number in range(5000)}


def packed(own: Mapping[str, Digest]) -> bytes:
    files = {**FILES, **own}
    return manifest.pack(Entry(path, FILE, 0o644, 0, 0, 1, digest) for path, digest in files.items())


class Exchange:
    """Rounds with one authority, and the bytes that they take."""

    def __init__(self, minor: int = 6, most_bytes: int = 1 << 26) -> None:
        self.bodies = Bodies(most_bytes)
        self._version = Version(1, minor)

    def round(self, body: bytes, scope: str = SCOPE) -> tuple[int, list[Need]]:
        """Bytes sent by the sidecar, and what it was asked."""
        digest = manifest.digest(body)
        claim = LayerClaim(Layer.FILES, digest, Method.FULL, 1, 1, len(FILES))
        claims = replace(CLAIMS, layers=(claim,))
        request, sent = Attest(b"evidence", in_parts=True), 0
        asked: list[Need] = []
        while True:
            frame = messages.encode(request, 1, version=self._version)
            sent += len(frame)
            heard = messages.decode(frame, version=self._version).message
            assert isinstance(heard, Attest)
            found = need.take(heard, {digest: Layer.FILES}, scope, self.bodies)
            if found:
                assert found == {digest: body}
                return sent, asked
            told = messages.encode(need.missing(heard, claims, {digest}, scope, self.bodies), 1, version=self._version)
            reply = messages.decode(told, version=self._version).message
            assert isinstance(reply, Need)
            asked.append(reply)
            assert len(asked) < 4
            request = with_needed(request, reply, {digest: body}.__getitem__)


def test_of_a_manifest_like_one_that_was_seen_only_what_differs_is_sent() -> None:
    exchange = Exchange()
    whole, _ = exchange.round(packed({}))
    part, asked = exchange.round(packed({"/srv/app/hostname": "b" * 64}))
    assert [bool(each.outlines) for each in asked] == [True, False]
    assert len(asked[1].parts) <= 2
    assert part < whole / 10


def test_a_fleet_whose_instances_differ_in_one_file_each_sends_little() -> None:
    parts_of_it, whole = Exchange(), Exchange(minor=5)
    bodies = [packed({"/srv/app/hostname": f"{number:064x}"}) for number in range(20)]
    assert sum(parts_of_it.round(each)[0] for each in bodies) < sum(whole.round(each)[0] for each in bodies) / 7


def test_a_manifest_that_was_seen_is_not_asked_for() -> None:
    exchange = Exchange()
    exchange.round(packed({}))
    assert exchange.round(packed({}))[1] == []


def test_nobody_is_given_parts_of_another_registration() -> None:
    exchange = Exchange()
    exchange.round(packed({}))
    _, asked = exchange.round(packed({"/srv/app/x": "b" * 64}), scope="db")
    assert [len(each.digests) for each in asked] == [1]


def test_a_sidecar_that_knows_no_parts_is_asked_for_all() -> None:
    exchange = Exchange(minor=5)
    exchange.round(packed({}))
    _, asked = exchange.round(packed({"/srv/app/x": "b" * 64}))
    assert asked == [Need((manifest.digest(packed({"/srv/app/x": "b" * 64})),))]


def test_parts_of_a_body_that_is_no_longer_held_are_asked_for_again() -> None:
    exchange = Exchange(most_bytes=int(len(packed({})) * 2.5))
    for number in range(4):
        exchange.round(packed({"/srv/app/hostname": f"{number:064x}"}))
    assert exchange.round(packed({"/srv/app/hostname": f"{0:064x}"}))[1]


BODY = packed({})
DIGEST = manifest.digest(BODY)
ASKED = {DIGEST: Layer.FILES}


def test_parts_that_do_not_make_what_was_claimed_are_refused() -> None:
    forged = packed({"/srv/app/x": "b" * 64})
    pieces = parts.cut(forged)
    given = Attest(b"", (), True, (Outline(DIGEST, parts.outline(pieces)),), tuple(pieces))
    with pytest.raises(Refused, match="not what the evidence claims"):
        need.take(given, ASKED, SCOPE, Bodies())


def test_an_outline_of_what_was_not_claimed_is_not_looked_at() -> None:
    given = Attest(b"", (), True, (Outline("b" * 64, b"no outline"),))
    assert need.take(given, ASKED, SCOPE, Bodies()) == {}


def test_an_outline_that_is_none_is_refused() -> None:
    with pytest.raises(MalformedEvidence):
        need.take(Attest(b"", (), True, (Outline(DIGEST, b"no outline"),)), ASKED, SCOPE, Bodies())


def test_a_body_that_comes_whole_where_parts_were_asked_for_will_do() -> None:
    assert need.take(Attest(b"", (Body(DIGEST, BODY),), True), ASKED, SCOPE, Bodies()) == {DIGEST: BODY}
