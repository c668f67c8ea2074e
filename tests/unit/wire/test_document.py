"""docs/problems.md says of every problem what it means."""

from __future__ import annotations

from pathlib import Path

from wire.document import MEANINGS, document
from wire.problems import Kind


def test_every_problem_has_a_meaning_and_a_way_to_mend_it() -> None:
    assert list(MEANINGS) == list(Kind)
    assert all(means.endswith(".") and mend for means, mend in MEANINGS.values())


def test_the_page_is_what_the_code_says() -> None:
    assert Path("docs/problems.md").read_text() == document(), "run: python -m wire.document > docs/problems.md"
