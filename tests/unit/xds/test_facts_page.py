"""docs/envoy-facts.md names only tests and places that are there, and every test of a fact."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SYSTEM = ROOT / "tests" / "system"
PAGE = (ROOT / "docs" / "envoy-facts.md").read_text()
TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


def named() -> set[tuple[str, str]]:
    """File and test of each line."""
    return set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE))


def written(file: str) -> set[str]:
    return set(TEST.findall((SYSTEM / file).read_text()))


def test_every_test_that_the_page_names_exists() -> None:
    assert len(named()) > 50
    assert {(file, test) for file, test in named() if test not in written(file)} == set()


def test_every_place_that_the_page_names_exists() -> None:
    places = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(places) > 15
    assert {place for place in places if not (ROOT / place).is_file()} == set()


def test_every_test_of_a_fact_is_on_the_page() -> None:
    files = [f"xds/{path.name}" for path in (SYSTEM / "xds").glob("test_envoy_facts_*.py")]
    files += [f"closing/{path.name}" for path in (SYSTEM / "closing").glob("test_*.py")]
    assert {(file, test) for file in files for test in written(file)} - named() == set()
