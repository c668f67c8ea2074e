"""Prometheus's text format 0.0.4, from what a recorder holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from telemetry.metrics import Metric
from telemetry.recorder import Buckets, Family, Recorder

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(recorder: Recorder) -> bytes:
    """Every series, each with the subject's labels."""
    subject = _pairs(recorder.subject.items())
    return "".join(line for family in recorder.families() for line in _family(family, subject)).encode()


def _family(family: Family, subject: str) -> Iterator[str]:
    metric = family.metric
    yield f"# HELP {metric.name} {_escaped(metric.help, quotes=False)}\n# TYPE {metric.name} {metric.type}\n"
    for point in family.points:
        yield f"{metric.name}{_braced(_own(metric, point.labels), subject)} {_number(point.value)}\n"
    for each in family.buckets:
        yield from _histogram(metric, each, subject)


def _histogram(metric: Metric, series: Buckets, subject: str) -> Iterator[str]:
    own = _own(metric, series.labels)
    bounds = (*metric.bounds, float("inf"))
    for bound, count in zip(bounds, accumulate(series.counts), strict=True):
        yield f"{metric.name}_bucket{_braced(own, subject, _pairs([('le', _number(bound))]))} {count}\n"
    yield f"{metric.name}_sum{_braced(own, subject)} {_number(series.total)}\n"
    yield f"{metric.name}_count{_braced(own, subject)} {series.count}\n"


def _own(metric: Metric, values: tuple[str, ...]) -> str:
    return _pairs((label.name, value) for label, value in zip(metric.labels, values, strict=True))


def _braced(*pairs: str) -> str:
    found = ",".join(each for each in pairs if each)
    return f"{{{found}}}" if found else ""


def _pairs(labels: Iterable[tuple[str, str]]) -> str:
    return ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels)


def _escaped(text: str, *, quotes: bool) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value.is_integer() else repr(value)
