"""The documents and the checkout, held against each other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/threat-model.md").read_text()))
    written = {name for file in ROOT.glob("tests/**/*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert named
    assert named - written == set()


def test_every_place_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = "attestation|policies|xds|sidecar|measurer|authority|wire"
    named = set(re.findall(rf"(?<![\w/])((?:{rooms})/[\w/]+\.py)\b", text))
    assert named
    assert {place for place in named if not (ROOT / place).exists()} == set()


def test_every_dependency_has_its_line() -> None:
    declared = re.findall(r'^  "([a-z0-9-]+)[>=<\[]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    explained = (ROOT / "docs/adr/0002-dependencies.md").read_text()
    assert declared
    assert [name for name in declared if name not in explained] == []
