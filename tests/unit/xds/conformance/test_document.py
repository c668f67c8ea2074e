"""docs/xds-conformance.md and the tests it speaks of, held against each other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/xds-conformance.md").read_text()
EXEMPT = r"not applicable: \w+"
"""How a row begins that needs no test, and says why."""


def cases() -> list[tuple[str, str]]:
    """The rows of the tables that set a case of a peer beside ours."""
    rows = re.findall(r"^\| (?P<case>[^|]+) \| (?P<here>[^|]+) \|$", PAGE, re.MULTILINE)
    return [(case, here) for case, here in rows if here != "here"]


def written(*places: str) -> set[str]:
    files = [file for place in places for file in ROOT.glob(place)]
    return {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}


def test_every_case_has_a_test_or_a_reason() -> None:
    assert len(cases()) > 150
    bare = [case for case, here in cases() if not (named(here) or re.match(EXEMPT, here))]
    assert bare == []


def test_no_case_stands_twice() -> None:
    listed = [case for case, _ in cases()]
    assert {case for case in listed if listed.count(case) > 1} == set()


def test_every_test_that_the_page_names_exists() -> None:
    assert named(PAGE) - written("tests/unit/xds/**/*.py", "tests/system/xds/*.py") == set()


def test_every_conformance_test_is_named() -> None:
    held = written("tests/unit/xds/conformance/*.py", "tests/system/xds/test_grpc_client.py")
    ours = written("tests/unit/xds/conformance/test_document.py")
    assert held - ours - named(PAGE) == set()


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))
