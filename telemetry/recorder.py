"""What a program counts, in plain numbers. Exporters read it; nothing here waits, allocates per series or does I/O.

A round fills one record of timestamps. Everything derived from it is computed after the lease is served.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from telemetry import metrics
from telemetry.metrics import Metric, Trace, Type

MOST_TRACES = 512
"""Traces that wait for an exporter; the oldest is dropped, and counted, when there is no room."""

Labels = tuple[str, ...]
Attribute = str | int | bool


@dataclass(slots=True)
class RoundRecord:
    """CLOCK_BOOTTIME seconds at which each stage of one round was over; 0 for a stage it did not reach."""

    began: float
    full: bool = False
    nonce: float = 0.0
    measured: float = 0.0
    signed: float = 0.0
    answered: float = 0.0
    served: float = 0.0
    value: bytes = b""
    """The nonce itself: what sidecar and authority both know of this round."""

    def marks(self) -> list[tuple[str, float]]:
        return reached(self, metrics.ATTESTING)

    def stages(self) -> dict[str, float]:
        """Milliseconds spent in each stage reached, and in all of them."""
        marks = [("", self.began), *self.marks()]
        found = {f"{name}_ms": round((at - before) * 1000, 3) for (_, before), (name, at) in pairwise(marks)}
        return {**found, "total_ms": round((marks[-1][1] - self.began) * 1000, 3)}


@dataclass(slots=True)
class AppraisalRecord:
    """The same at the authority."""

    began: float
    verified: float = 0.0
    appraised: float = 0.0
    accepted: float = 0.0
    issued: float = 0.0
    value: bytes = b""

    def marks(self) -> list[tuple[str, float]]:
        return reached(self, metrics.APPRAISING)


def reached(record: object, stages: Iterable[str]) -> list[tuple[str, float]]:
    """Each stage that a record has a time for, in order."""
    return [(name, at) for name in stages if (at := getattr(record, name))]


@dataclass(frozen=True, slots=True)
class Spans:
    """One trace, or this program's part of one, before it is put into anybody's format.

    began: CLOCK_BOOTTIME seconds. marks: where each stage ended; the first begins at `began`, each other where the
    one before it ended. parent: a span id of the other program, or empty.
    """

    root: Trace
    trace_id: bytes
    began: float
    marks: tuple[tuple[str, float], ...]
    parent: bytes = b""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def span_id(self, stage: str = "") -> bytes:
        """Eight bytes; empty stage for the root."""
        return _span_id(self.trace_id, self.root, stage)


def of_round(record: RoundRecord, attributes: Mapping[str, Attribute]) -> Spans:
    return Spans(Trace.ROUND, _trace_id(record.value), record.began, tuple(record.marks()), attributes=attributes)


def of_appraisal(record: AppraisalRecord, attributes: Mapping[str, Attribute]) -> Spans:
    """Its parent is the sidecar's wait for the answer: both sides make the ids from the nonce, nothing is sent."""
    trace_id = _trace_id(record.value)
    parent = _span_id(trace_id, Trace.ROUND, "answered")
    return Spans(Trace.APPRAISAL, trace_id, record.began, tuple(record.marks()), parent, attributes)


def of_closing(steps: Mapping[str, float], attributes: Mapping[str, Attribute]) -> Spans:
    """steps: CLOCK_BOOTTIME seconds by name, `began` among them."""
    marks = sorted(((name, at) for name, at in steps.items() if name in metrics.CLOSING), key=lambda each: each[1])
    return Spans(Trace.CLOSING, os.urandom(16), steps["began"], tuple(marks), attributes=attributes)


def _trace_id(nonce: bytes) -> bytes:
    return hashlib.sha256(b"proofbeat trace\0" + nonce).digest()[:16] if nonce else os.urandom(16)


def _span_id(trace_id: bytes, root: Trace, stage: str) -> bytes:
    return hashlib.sha256(trace_id + f"{root}\0{stage}".encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class Point:
    """One series' value."""

    labels: Labels
    value: float


@dataclass(slots=True)
class Buckets:
    """One histogram series. counts: of each bucket by itself, the last one without an upper bound."""

    labels: Labels
    counts: list[int]
    total: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with its series: Buckets for a histogram, Points else."""

    metric: Metric
    points: tuple[Point, ...] = ()
    buckets: tuple[Buckets, ...] = ()


Reading = Callable[[], Iterable[tuple[Labels, float]]]


class Recorder:
    """One a process. Labels are given in the metric's order; a value that is not declared counts as `other`."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.subject: dict[str, str] = {}
        """Labels of every series: whose telemetry this is."""
        self.instance = ""
        self.traces: deque[Spans] | None = None
        """Set by an exporter that wants them."""
        self._values: dict[Metric, dict[Labels, float]] = {}
        self._buckets: dict[Metric, dict[Labels, Buckets]] = {}
        self._readings: dict[Metric, Reading] = {}
        for metric in metrics.METRICS:
            if program in metric.programs and metric.type is Type.COUNTER:
                self._values[metric] = dict.fromkeys(_foreseen(metric), 0.0)

    def count(self, metric: Metric, *labels: str) -> None:
        """One more."""
        series = self._values.setdefault(metric, {})
        key = metric.labelled(labels)
        series[key] = series.get(key, 0.0) + 1.0

    def raise_to(self, metric: Metric, total: float, *labels: str) -> None:
        """For what somebody else counts: never goes back."""
        series = self._values.setdefault(metric, {})
        key = metric.labelled(labels)
        series[key] = max(series.get(key, 0.0), total)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """One more value of a histogram."""
        series = self._buckets.setdefault(metric, {})
        key = metric.labelled(labels)
        found = series.get(key)
        if found is None:
            found = series[key] = Buckets(key, [0] * (len(metric.bounds) + 1))
        found.counts[bisect_left(metric.bounds, value)] += 1
        found.total += value

    def observe_stages(self, began: float, marks: Iterable[tuple[str, float]]) -> None:
        """A round's stages, one after the other, and all of it."""
        before = began
        for stage, at in marks:
            self.observe(metrics.ROUND_SECONDS, at - before, stage)
            before = at
        self.observe(metrics.ROUND_SECONDS, before - began, metrics.TOTAL)

    def watch(self, metric: Metric, read: Reading) -> None:
        """A value that is looked up when somebody asks."""
        self._readings[metric] = read

    def traced(self, make: Callable[[], Spans]) -> None:
        """make: called only where an exporter wants traces."""
        if self.traces is None:
            return
        if len(self.traces) == self.traces.maxlen:
            self.count(metrics.DROPPED, "trace")
        self.traces.append(make())

    def families(self) -> Iterator[Family]:
        """Everything as it stands now, in the order of the declarations."""
        for metric in metrics.METRICS:
            if metric in self._readings:
                read = tuple((metric.labelled(labels), value) for labels, value in self._readings[metric]())
                yield Family(metric, tuple(Point(labels, value) for labels, value in read))
            elif metric in self._values:
                yield Family(metric, tuple(Point(labels, value) for labels, value in self._values[metric].items()))
            elif metric in self._buckets:
                yield Family(metric, buckets=tuple(self._buckets[metric].values()))


def _foreseen(metric: Metric) -> tuple[Labels, ...]:
    """The series that are there from the start: one that begins with its first event hides that event from a rate.

    More labels than one make too many that never happen.
    """
    if len(metric.labels) > 1:
        return ()
    return tuple((value,) for label in metric.labels for value in label.values) or ((),)
