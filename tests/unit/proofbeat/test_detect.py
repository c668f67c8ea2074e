"""The catalogue of acts: complete, and sent as what it says."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from attestation.signals import Signal
from proofbeat.acts import acts
from proofbeat.bench.detect.catalogue import CATALOGUE, ELSEWHERE, UNSEEN
from proofbeat.bench.detect.document import document
from proofbeat.bench.detect.run import Sample, report

PAGE = Path(__file__).resolve().parents[3] / "docs" / "signals.md"


def test_every_signal_has_an_act_that_shows_it_or_a_reason_why_none_does_and_never_both() -> None:
    shown = {each.signal for each in CATALOGUE}
    assert shown | set(ELSEWHERE) == set(Signal)
    assert shown & set(ELSEWHERE) == set()


def test_the_page_names_every_signal_every_act_and_every_gap() -> None:
    text = PAGE.read_text()
    assert [each for each in Signal if f"`{each}`" not in text] == []
    assert [each.told for each in CATALOGUE if f"| {each.told} |" not in text] == []
    assert [gap for gaps in UNSEEN.values() for gap in gaps if gap not in text] == []


def test_acts_have_names_of_their_own_and_say_what_they_are() -> None:
    assert len({each.name for each in CATALOGUE}) == len(CATALOGUE)
    assert [each.name for each in CATALOGUE if not each.told.endswith(".")] == []
    assert {each.collector for each in CATALOGUE} == set(UNSEEN)


@pytest.mark.parametrize("source", sorted({each.source for each in CATALOGUE}), ids=lambda _: "source")
def test_what_is_sent_to_the_workload_imports_the_standard_library_alone(source: str) -> None:
    imported = {
        name.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for name in node.names
    }
    imported |= {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert {each.partition(".")[0] for each in imported} <= sys.stdlib_module_names


def test_a_report_has_each_acts_figures_and_a_budget_by_what_is_stated() -> None:
    attack = next(each for each in CATALOGUE if each.act is acts.add)
    found = report({attack: [Sample(3.0, 20.0, 30.0, "drift"), Sample(11.0, 40.0, 50.0, "drift")]}, stated=True)
    assert [budget.holds for budget in found.budgets] == [False]
    text = document(found.plain(), None)
    assert f"| {attack.told} | `file-unreferenced` | drift | `files` | 10 | 3.0 | 11.0 | 20.0 | 40.0 | | |" in text


def test_the_page_says_of_a_run_without_capabilities_what_was_told_how_soon_and_how_often() -> None:
    acted = {each.act: each for each in CATALOGUE}
    told, sometimes, never = acted[acts.add], acted[acts.run_what_was_dropped], acted[acts.run_from_memory]
    sample = Sample(12.0, 40.0, 50.0, "tamper")
    full = report({each: [sample] for each in CATALOGUE}, stated=True)
    less = report({told: [sample, sample], sometimes: [sample, None], never: [None, None]}, stated=False)
    assert less.budgets == (), "what is stated is with all privileges"
    rows = {line.split(" | ")[0]: line for line in document(full.plain(), less.plain()).splitlines()}
    assert rows[f"| {told.told}"].endswith("| 12.0 | 12.0 | 2 of 2 acts |")
    assert rows[f"| {sometimes.told}"].endswith("| 12.0 | 12.0 | 1 of 2 acts |")
    assert rows[f"| {never.told}"].endswith("| | | 0 of 2 acts |")
    assert rows[f"| {acted[acts.become_root].told}"].endswith("| | | takes a capability |")


def test_what_takes_a_capability_is_not_tried_without_one_and_the_rest_is() -> None:
    assert [each.name for each in CATALOGUE if each.privileged and not each.needs_root] == []
    assert all(each.possible(restricted=False) and each.reliable(restricted=False) for each in CATALOGUE)
    assert {each.privileged for each in CATALOGUE if each.possible(restricted=True)} == {False}
