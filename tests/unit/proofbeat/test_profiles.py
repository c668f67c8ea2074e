"""The page of profiles is the one that the code makes."""

from __future__ import annotations

from pathlib import Path

from proofbeat.doctor.profiles import page


def test_the_page_is_not_behind() -> None:
    written = (Path(__file__).parents[3] / "docs" / "profiles.md").read_text()
    assert written == page(), "run `make docs`"
