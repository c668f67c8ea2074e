"""Versions: what is agreed, what a peer of an earlier minor hears, and what was said in 1.0 stays understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import evidence, release, results
from attestation.detectors.alerts import Alert, Detector, Whereabouts
from attestation.digests import of_content
from attestation.drift import Drift
from attestation.errors import InvalidInput, Refused
from attestation.plain import build, plain, since
from tests.unit.wire.recorded import EVIDENCE_KEY, FRAMES, RECORDED, RESULT_KEY, Recorded, recorded
from wire import messages, problems, versions
from wire.messages import (
    Alerted,
    Answer,
    AskDenials,
    AskHold,
    Attest,
    BreakGlass,
    Denials,
    Enrol,
    Hello,
    Hold,
    HoldOver,
    Message,
    Noted,
    Placed,
    PolicyChanged,
    Posted,
    Reachable,
    Released,
)
from wire.proofs import Opened, Purpose
from wire.versions import FIRST, OURS, Spoken, Version

FROZEN = "c2c5c20d772585344a544034362f442856ad5dbddb82e0f0844d37083ce98ba6"
LATER = {
    AskDenials(): 2,
    Reachable(("127.0.0.1:9443",)): 2,
    Denials(1, (), b"crl"): 2,
    BreakGlass(("{}",)): 4,
    AskHold(1, (Drift("file-modified", "files", "/srv/app/main.py", "a" * 64),)): 5,
    Hold(1, held=True, closed=1, live=4): 5,
    HoldOver("there is room"): 5,
    Placed(Whereabouts("a" * 64)): 8,
    Noted(Alert(Detector.FALCO, "Shell", "a shell", 1)): 8,
    Alerted((Alert(Detector.TETRAGON, "files", "read", 1),)): 8,
}
"""Messages of the kinds that came after 1.0, each with the minor that brought it."""
LATER_KINDS = {type(each).__name__ for each in LATER}


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.kind)
def test_what_was_said_in_1_0_is_understood_and_is_still_said_in_the_same_bytes(frame: Recorded) -> None:
    for version in (FIRST, OURS.highest):
        assert type(messages.decode(frame.content, version=version).message).__name__ == frame.kind
    read = messages.decode(frame.content, version=FIRST)
    assert messages.encode(read.message, frame.number, version=FIRST) == frame.content


def test_every_kind_of_1_0_is_recorded() -> None:
    kinds = {shape.__name__ for shape in get_args(Message)}
    assert kinds == {frame.kind for frame in FRAMES} | LATER_KINDS


@pytest.mark.parametrize(("message", "minor"), LATER.items(), ids=lambda each: type(each).__name__)
def test_a_kind_that_came_later_is_neither_said_to_nor_taken_from_a_peer_of_an_earlier_minor(
    message: Message, minor: int
) -> None:
    since, before = Version(1, minor), Version(1, minor - 1)
    frame = messages.encode(message, 1, version=since)
    assert messages.decode(frame, version=since).message == message
    assert (messages.knows(since, type(message)), messages.knows(before, type(message))) == (True, False)
    with pytest.raises(InvalidInput, match=rf"wire 1\.{minor - 1}"):
        messages.encode(message, 1, version=before)
    with pytest.raises(InvalidInput, match="unknown kind"):
        messages.decode(frame, version=before)


@pytest.mark.parametrize(
    ("sealed", "shape", "purpose"),
    [("Enrol", Enrol, Purpose.ENROL), ("Hello", Hello, Purpose.SESSION), ("Posted", Posted, Purpose.POST)],
)
def test_what_was_signed_in_1_0_still_holds(sealed: str, shape: type, purpose: Purpose) -> None:
    recording = recorded(f"COSE_Sign1({sealed})")
    opened = Opened(recording.content)
    assert isinstance(opened.claimed(shape), shape)
    assert recording.purpose == purpose
    if sealed != "Posted":  # that one came from the second attester
        opened.check(purpose, EVIDENCE_KEY)


def test_evidence_results_policy_and_release_of_1_0_still_read() -> None:
    attest = messages.decode(recorded("Attest").content).message
    answer = messages.decode(recorded("Answer").content).message
    policy = messages.decode(recorded("PolicyChanged").content).message
    released = messages.decode(recorded("Released").content).message
    assert isinstance(attest, Attest) and isinstance(answer, Answer)
    assert isinstance(policy, PolicyChanged) and isinstance(released, Released)
    told = evidence.parse(attest.evidence)
    assert told.holds
    result = results.parse(answer.ear, RESULT_KEY, now=answer.issued_ms / 1000)
    assert (result.nonce, result.instance) == (told.nonce, told.claims.instance)
    assert results.open_signed(policy.document, RESULT_KEY)
    assert release.parse(released.order, RESULT_KEY).instance == told.claims.instance
    assert problems.from_json(recorded("problem+json").content).kind == "token-invalid"


def test_the_recording_is_as_it_was() -> None:
    assert of_content(b"".join(each.content for each in RECORDED)) == FROZEN


@dataclass(frozen=True, slots=True)
class Grown:
    """A message that minor 1 gave a field."""

    old: int
    new: str = since(1, "unsaid")


@dataclass(frozen=True, slots=True)
class Around:
    inner: tuple[Grown, ...]


def test_a_later_field_is_neither_said_to_nor_taken_from_a_peer_of_an_earlier_minor() -> None:
    grown = Around((Grown(1, "said"),))
    assert plain(grown, minor=0) == {"inner": [{"old": 1}]}
    assert plain(grown, minor=1) == {"inner": [{"old": 1, "new": "said"}]}
    assert build(Around, plain(grown, minor=0), minor=1) == Around((Grown(1, "unsaid"),))
    assert build(Around, plain(grown, minor=1), minor=1) == grown
    with pytest.raises(InvalidInput, match="unknown field new"):
        build(Around, plain(grown, minor=1), minor=0)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("1.0", "1.0-1.1", "1.0"),
        ("1.0-1.1", "1.0-1.1", "1.1"),
        ("1.0-1.9", "1.0-1.1", "1.1"),
        ("1.1-2.0", "1.0-1.1", "1.1"),
        ("1.0-3.0", "2.0-2.4", "2.4"),
    ],
)
def test_the_highest_version_that_both_speak_is_chosen(theirs: str, ours: str, expected: str) -> None:
    assert str(versions.agreed(versions.read(theirs), versions.read(ours))) == expected


@pytest.mark.parametrize(
    ("theirs", "ours", "older"),
    [("2.0-2.1", "1.0-1.1", "authority"), ("1.2-1.3", "1.0-1.1", "authority"), ("1.0-1.1", "1.2", "sidecar")],
)
def test_no_version_in_common_is_a_problem_that_names_both_and_who_is_older(theirs: str, ours: str, older: str) -> None:
    with pytest.raises(Refused) as refused:
        versions.agreed(versions.read(theirs), versions.read(ours))
    assert refused.value.kind == "version-unsupported"
    assert f"sidecar speaks wire {theirs}" in refused.value.what
    assert f"this authority {ours}" in refused.value.what
    assert older in refused.value.mend


def test_who_says_nothing_speaks_1_0() -> None:
    assert versions.read(None) == Spoken(FIRST, FIRST)
    assert versions.chosen(None) == FIRST


@pytest.mark.parametrize("header", ["", "1", "1.0-", "1.0-1.1-1.2", "one.two", "1.0, 1.1", "1.99999", "1.0\r\nX: y"])
def test_a_version_that_does_not_parse_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput, match="does not parse"):
        versions.read(header)


@pytest.mark.parametrize("header", ["2.0", f"1.{OURS.highest.minor + 1}", "1.0-1.1", "0.9"])
def test_an_authority_chooses_one_version_of_those_it_was_offered(header: str) -> None:
    with pytest.raises(InvalidInput, match="not offered"):
        versions.chosen(header)


_VERSION = st.builds(Version, st.integers(0, 3), st.integers(0, 5))


@given(st.lists(_VERSION, min_size=2, max_size=2).map(sorted), st.lists(_VERSION, min_size=2, max_size=2).map(sorted))
def test_what_is_agreed_is_spoken_by_both_and_refused_only_where_nothing_is(
    first: list[Version], second: list[Version]
) -> None:
    theirs, ours = Spoken(*first), Spoken(*second)
    overlap = max(theirs.lowest, ours.lowest) <= min(theirs.highest, ours.highest)
    if overlap:
        assert versions.agreed(theirs, ours) in theirs
        assert versions.agreed(theirs, ours) in ours
    else:
        with pytest.raises(Refused):
            versions.agreed(theirs, ours)
    assert versions.read(str(theirs)) == theirs
