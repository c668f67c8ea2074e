"""docs/metrics.md, from the declarations. `python -m telemetry.document > docs/metrics.md` writes it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from telemetry import metrics
from telemetry.metrics import Metric, Trace

_HEAD = f"""# Metrics and traces

Made from telemetry/metrics.py by `python -m telemetry.document`; a test holds the two in step.

`telemetry.listen` in a program's settings serves Prometheus's text format at `/metrics`, on a Unix socket of mode 0600
(`curl --unix-socket run/metrics.sock http://sidecar/metrics`) or on a port. `telemetry.otlp.endpoint` sends the same
metrics, and traces, to an OTLP collector (http/protobuf). Without either nothing is exported and nothing is loaded.
```yaml
telemetry:
  listen: unix:run/metrics.sock
  otlp: {{endpoint: "https://collector:4318", headersFile: otlp-headers, interval: 10s}}
```
Every series of a sidecar carries {", ".join(f"`{each}`" for each in metrics.SUBJECT)}, named as
Istio names them and taken from the SPIFFE ID (`/ns/NAMESPACE/sa/WORKLOAD`, else its last segment); `unknown` until it
is enrolled, and where the ID has no namespace. The authority's carry `trust_domain`. Under OTLP they are attributes of
the resource, beside the instance.

A label's values are those listed here, and `{metrics.OTHER}`: whatever else a workload, an Envoy or a peer makes us
meet is counted there, so that nobody outside can make a series. Whoever reads metrics often can time rounds: so ages
are coarse, a text is rendered once a second at most, and a port is for a network that the workload cannot reach.
"""


def document() -> str:
    return "".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    for program in metrics.BOTH:
        yield f"\n## {program.capitalize()}\n| metric | type | unit | what it says |\n|---|---|---|---|\n"
        for metric in metrics.METRICS:
            if program in metric.programs:
                yield f"| `{metric.name}` | {metric.type} | {metric.unit} | {metric.help} |\n"
    yield "\n## Labels and buckets\n| metric | label | values |\n|---|---|---|\n"
    for metric in metrics.METRICS:
        yield from _labels(metric)
    yield (
        "\n## Traces\n"
        "Spans are made after the lease is served, from the times that a round noted down. Sidecar and authority make\n"
        "the trace's id from the round's nonce: both halves meet in one trace, and nothing is sent for it.\n\n"
        "| root span | its children |\n|---|---|\n"
    )
    for trace, stages in (
        (Trace.ROUND, metrics.ATTESTING),
        (Trace.APPRAISAL, metrics.APPRAISING),
        (Trace.CLOSING, metrics.CLOSING),
    ):
        yield f"| `{trace}` | {', '.join(f'`{trace}.{stage}`' for stage in stages)} |\n"
    yield (
        f"\n`{Trace.APPRAISAL}` is the child of `{Trace.ROUND}.answered`. Rounds and appraisals carry `instance`,\n"
        "`sequence`, `generation`, `full` and `tier`. A round that failed leaves no trace, only a count.\n"
    )


def _labels(metric: Metric) -> Iterator[str]:
    for label in metric.labels:
        yield f"| `{metric.name}` | `{label.name}` | {', '.join(f'`{value}`' for value in label.values)} |\n"
    if metric.bounds:
        yield f"| `{metric.name}` | `le` | {', '.join(f'{bound:g}' for bound in metric.bounds)} |\n"


if __name__ == "__main__":
    sys.stdout.write(document())
