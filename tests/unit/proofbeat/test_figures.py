"""Percentiles and budgets of a benchmark's report."""

from __future__ import annotations

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
