"""OTLP's protobuf, from what a recorder holds. Imported only where an endpoint is configured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Gauge,
    Histogram,
    HistogramDataPoint,
    NumberDataPoint,
    Sum,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as OtlpMetric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from telemetry.metrics import Metric, Type
from telemetry.recorder import Attribute, Buckets, Family, Recorder, Spans

_SCOPE = InstrumentationScope(name="proofbeat")


def metrics_request(recorder: Recorder, *, began_ns: int, now_ns: int) -> bytes:
    """Everything as it stands: cumulative, so that one that gets lost is made up by the next. Unix nanoseconds."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add(resource=_resource(recorder))
    scope = resource.scope_metrics.add(scope=_SCOPE)
    scope.metrics.extend(_metric(family, began_ns, now_ns) for family in recorder.families())
    return request.SerializeToString()


def traces_request(recorder: Recorder, traces: Iterable[Spans], *, boot_ns: int) -> bytes:
    """boot_ns: Unix nanoseconds at which CLOCK_BOOTTIME was 0. Two requests after each other are one request too."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add(resource=_resource(recorder)).scope_spans.add(scope=_SCOPE)
    for trace in traces:
        scope.spans.extend(_spans(trace, boot_ns))
    return request.SerializeToString()


def _resource(recorder: Recorder) -> Resource:
    instance = {"service.instance.id": recorder.instance} if recorder.instance else {}
    named = {"service.name": f"proofbeat-{recorder.program}", **instance, **recorder.subject}
    return Resource(attributes=_attributes(named))


def _metric(family: Family, began_ns: int, now_ns: int) -> OtlpMetric:
    metric = family.metric
    found = OtlpMetric(name=metric.name, description=metric.help, unit=metric.unit)
    if metric.type is Type.HISTOGRAM:
        points = [_histogram(metric, each, began_ns, now_ns) for each in family.buckets]
        histogram = Histogram(data_points=points, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE)
        found.histogram.CopyFrom(histogram)
        return found
    numbers = [
        NumberDataPoint(
            attributes=_labels(metric, point.labels),
            start_time_unix_nano=began_ns if metric.type is Type.COUNTER else 0,
            time_unix_nano=now_ns,
            as_double=point.value,
        )
        for point in family.points
    ]
    if metric.type is Type.COUNTER:
        total = Sum(data_points=numbers, aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE, is_monotonic=True)
        found.sum.CopyFrom(total)
    else:
        found.gauge.CopyFrom(Gauge(data_points=numbers))
    return found


def _histogram(metric: Metric, series: Buckets, began_ns: int, now_ns: int) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=_labels(metric, series.labels),
        start_time_unix_nano=began_ns,
        time_unix_nano=now_ns,
        count=series.count,
        sum=series.total,
        bucket_counts=series.counts,
        explicit_bounds=metric.bounds,
    )


def _spans(trace: Spans, boot_ns: int) -> Iterable[Span]:
    def at(seconds: float) -> int:
        return boot_ns + int(seconds * 1e9)

    root = trace.span_id()
    ended = max((mark for _, mark in trace.marks), default=trace.began)
    yield Span(
        trace_id=trace.trace_id,
        span_id=root,
        parent_span_id=trace.parent,
        name=trace.root,
        kind=Span.SPAN_KIND_SERVER if trace.parent else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=at(trace.began),
        end_time_unix_nano=at(ended),
        attributes=_attributes(trace.attributes),
    )
    before = trace.began
    for stage, mark in trace.marks:
        yield Span(
            trace_id=trace.trace_id,
            span_id=trace.span_id(stage),
            parent_span_id=root,
            name=f"{trace.root}.{stage}",
            kind=Span.SPAN_KIND_CLIENT if stage == "answered" else Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=at(before),
            end_time_unix_nano=at(mark),
        )
        before = mark


def _labels(metric: Metric, values: tuple[str, ...]) -> list[KeyValue]:
    return _attributes({label.name: value for label, value in zip(metric.labels, values, strict=True)})


def _attributes(named: Mapping[str, Attribute]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any(value)) for name, value in named.items()]


def _any(value: Attribute) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case str():
            return AnyValue(string_value=value)
