"""What is told of calls beside their layer: as claims, to whom it may be said, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import cbor, claimset, evidence
from attestation.calls import NAMES
from attestation.errors import MalformedEvidence
from attestation.tally import MOST_EXECUTABLE, MOST_MAGNITUDE, MOST_OFFENCES, Offence, Tally
from tests.unit.attestation.world import CLAIMS, KEY, NONCE
from wire.versions import CAPABILITY_USES

magnitudes = st.integers(0, MOST_MAGNITUDE)
offences = st.builds(
    Offence,
    call=st.sampled_from(sorted(NAMES)),
    pid=st.integers(0, 1 << 22),
    executable=st.text("abc/é ", max_size=MOST_EXECUTABLE),
    age_ms=st.integers(0, 1 << 40),
)
tallies = st.builds(
    Tally,
    counts=st.lists(magnitudes, max_size=200).map(tuple),
    rate=magnitudes,
    peak=magnitudes,
    events=magnitudes,
    offences=st.lists(offences, max_size=MOST_OFFENCES).map(tuple),
    more=st.integers(0, 1000),
)
SOME = Tally((3, 9, 0), 12, 14, 1, (Offence("chroot", 7, "/usr/sbin/nginx", 1500),), 2)


@given(tallies)
def test_a_tally_is_read_as_it_was_written(tally: Tally) -> None:
    claims = replace(CLAIMS, calls=tally)
    assert claimset.decode(cbor.loads(cbor.dumps(claimset.encode(claims)))) == claims


def test_an_authority_that_speaks_an_older_wire_is_told_nothing_of_it() -> None:
    claims = replace(CLAIMS, calls=SOME)
    older = claimset.encode(claims, minor=CAPABILITY_USES - 1)
    assert older == claimset.encode(CLAIMS, minor=CAPABILITY_USES - 1)
    assert claimset.decode(older).calls is None


def test_evidence_of_a_busy_workload_stays_small() -> None:
    busy = Tally((20,) * 100, 17, 18, 6)
    signed = [evidence.sign(replace(CLAIMS, calls=each), NONCE, KEY, issued_at=1.0) for each in (None, busy)]
    assert len(signed[1]) - len(signed[0]) < 120
    assert evidence.verify(signed[1]).claims.calls == busy


ROW = claimset.encode(replace(CLAIMS, calls=SOME))[11]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, bytes([MOST_MAGNITUDE + 1])),
        (0, bytes(1025)),
        (0, [1]),
        (1, MOST_MAGNITUDE + 1),
        (2, -1),
        (3, True),
        (4, [["chroot", 7, "/x", 1]] * (MOST_OFFENCES + 1)),
        (4, [["no call", 7, "/x", 1]]),
        (4, [["chroot", -1, "/x", 1]]),
        (4, [["chroot", 7, "/x", -1]]),
        (4, [["chroot", 7, "/x\n", 1]]),
        (4, [["chroot", 7, "/" * (MOST_EXECUTABLE + 1), 1]]),
        (4, [["chroot", 7, "/x"]]),
        (5, -1),
    ],
)
def test_what_no_measurer_can_have_told_is_refused(at: int, value: Any) -> None:
    row = [value if number == at else each for number, each in enumerate(ROW)]
    with pytest.raises(MalformedEvidence):
        claimset.decode({**claimset.encode(CLAIMS), 11: row})


def test_a_row_that_is_short_is_refused() -> None:
    with pytest.raises(MalformedEvidence):
        claimset.decode({**claimset.encode(CLAIMS), 11: ROW[:-1]})
