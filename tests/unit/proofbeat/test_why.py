"""How a time is asked for."""

from __future__ import annotations

import pytest

from attestation.errors import InvalidInput
from proofbeat.why import moment


def test_a_time_is_so_long_ago_or_a_date() -> None:
    assert moment("-5m", 1000.0) == 700.0
    assert moment("1970-01-01T00:01:00Z", 1000.0) == 60.0
    assert moment("1970-01-01T01:01:00+01:00", 1000.0) == 60.0


@pytest.mark.parametrize("text", ["", "5m", "-5", "yesterday", "-5m ago", "9999999-01-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        moment(text, 1000.0)
