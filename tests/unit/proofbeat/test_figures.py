"""Percentiles and budgets of a benchmark's report."""

from __future__ import annotations

import json

from proofbeat.bench.figures import Budget, Distribution, Report


def test_percentiles_are_by_nearest_rank() -> None:
    found = Distribution.of([float(each) for each in range(1, 101)])
    assert (found.samples, found.p50, found.p95, found.p99, found.max) == (100, 50.0, 95.0, 99.0, 100.0)


def test_a_report_holds_only_if_each_of_its_budgets_does() -> None:
    good, bad = Budget("a", 2.0, 2.0), Budget("b", 2.0, 2.1)
    assert Report("x", {}, (good,)).holds
    assert not Report("x", {}, (good, bad)).holds
    assert [each["holds"] for each in Report("x", {}, (good, bad)).plain()["budgets"]] == [True, False]


def test_a_budget_without_a_measurement_does_not_hold() -> None:
    assert not Budget("a", 2.0, Distribution.of([]).p99).holds


def test_where_more_is_better_a_budget_is_a_least_and_nothing_measured_does_not_hold() -> None:
    assert [Budget("a", 2.0, measured, at_least=True).holds for measured in (1.9, 2.0, float("nan"))] == [
        False,
        True,
        False,
    ]


def test_what_was_not_measured_is_null_in_a_report_that_any_reader_of_json_takes() -> None:
    nothing = Distribution.of([])
    written = json.dumps(Report("x", {"a": nothing}, (Budget("a", 2.0, nothing.p99),)).plain(), allow_nan=False)
    assert json.loads(written)["budgets"][0]["measured"] is None
