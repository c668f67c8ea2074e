"""The documents and the checkout, held against each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from authority import config as authority_config
from policies.model.load import load
from policies.model.metadata import Metadata
from policies.model.policy import Mode
from policies.model.references import ReferenceValues
from proofbeat.documents import to_yaml
from sidecar import config as sidecar_config

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", ["threat-model.md", "evasions.md"])
def test_every_test_that_a_page_of_attacks_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
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


def test_the_settings_and_policy_that_the_readme_shows_are_accepted(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shown = {name: _written(tmp_path / name, text) for name, text in blocks}
    references = ReferenceValues(metadata=Metadata(name="web"))
    _written(tmp_path / "policies/web-references.yaml", to_yaml(references))
    assert authority_config.load(shown["authority.yaml"]).trust_domain == "example.org"
    assert sidecar_config.load(shown["sidecar.yaml"], {}).workload.pid == 4242
    assert sidecar_config.load(shown["delivered.yaml"], {}).delivery.service is not None
    assert load([tmp_path / "policies"]).governing["web"].policy.spec.mode is Mode.ENFORCE


def _written(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_the_readme_names_every_key_that_why_and_doctor_print() -> None:
    text = (ROOT / "README.md").read_text()
    printed = {
        key
        for module in ("proofbeat/why.py", "proofbeat/doctor/run.py")
        for key in re.findall(r'^        "(\w+)": ', (ROOT / module).read_text(), re.MULTILINE)
    }
    assert {"answer", "allow", "complete"} <= printed
    assert {key for key in printed if not re.search(rf"[`\s{{]{key}[`\s,}}]", text)} == set()


def test_each_check_that_the_readme_shows_is_one_that_the_doctor_makes() -> None:
    shown = set(re.findall(r"^(?:ok|limited|broken) +([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    made = (ROOT / "proofbeat/doctor/findings.py").read_text()
    assert shown
    assert {name for name in shown if f'"{name}"' not in made} == set()
