"""The declarations, what is made from them, and both formats as somebody else reads them."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from attestation.facts import CollectorFact, CollectorState
from policies.appraise.violation import violates
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Mode
from policies.model.references import ReferenceValues
from sidecar.states import Phase
from telemetry import exposition, metrics, otlp, recorder
from telemetry.document import document
from telemetry.metrics import METRICS, OTHER, Trace, Type
from telemetry.recorder import AppraisalRecord, Recorder, RoundRecord, Spans

DESIGN = {
    "proofbeat_lease_remaining_seconds": (),
    "proofbeat_identity_state": ("state", "mode"),
    "proofbeat_rounds_total": ("result",),
    "proofbeat_round_seconds": ("stage",),
    "proofbeat_measurement_age_seconds": ("layer",),
    "proofbeat_events_lost_total": ("collector",),
    "proofbeat_system_calls_per_second": ("of",),
    "proofbeat_system_calls_outside": (),
    "proofbeat_violations_total": ("kind", "class"),
    "proofbeat_detector_alerts_total": ("detector", "outcome"),
    "proofbeat_close_seconds": ("step",),
    "proofbeat_contain_seconds": ("how", "outcome"),
    "proofbeat_forensic_bundles_total": ("outcome",),
    "proofbeat_xds_pushes_total": (),
    "proofbeat_xds_rejections_total": (),
    "proofbeat_appraisals_total": ("tier",),
    "proofbeat_appraisal_cache_total": ("outcome",),
    "proofbeat_issued_total": (),
    "proofbeat_sessions": (),
    "proofbeat_breakglass_active": (),
    "proofbeat_policy_faults": (),
    "proofbeat_held": (),
    "proofbeat_telemetry_dropped_total": ("what",),
}


def samples(made: Recorder) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """As Prometheus's own parser reads it."""
    families = text_string_to_metric_families(exposition.render(made).decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def test_names_and_labels_are_the_ones_agreed_on() -> None:
    assert {each.name: tuple(label.name for label in each.labels) for each in METRICS} == DESIGN


def test_the_document_is_in_step_with_the_declarations() -> None:
    assert Path("docs/metrics.md").read_text() == document(), "run: python -m telemetry.document > docs/metrics.md"


def test_states_and_modes_are_the_machines_own() -> None:
    state, mode = metrics.IDENTITY_STATE.labels
    assert state.values == (*Phase, metrics.WARNED, metrics.EXCEPTED)
    assert set(mode.values) == set(Mode)


@pytest.mark.parametrize("state", [each for each in CollectorState if each is not CollectorState.RUNNING])
def test_a_collectors_violation_has_a_kind_of_its_own(state: CollectorState) -> None:
    fact = CollectorFact(1.0, "files", state)
    named = Metadata(name="web")
    found = violates(fact, AttestationPolicy(metadata=named), ReferenceValues(metadata=named))
    assert found is not None
    assert found.kind in metrics.VIOLATIONS


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=50))
def test_nobody_outside_can_make_a_series(pairs: list[tuple[str, str]]) -> None:
    made = Recorder("sidecar")
    for kind, severity in pairs:
        made.count(metrics.VIOLATIONS_SEEN, kind, severity)
        made.observe(metrics.CLOSE_SECONDS, 0.1, kind)
        made.raise_to(metrics.EVENTS_LOST, 3.0, kind)
    allowed = {label.name: {*label.values, OTHER} for label in metrics.VIOLATIONS_SEEN.labels}
    own = {labels: count for (name, labels), count in samples(made).items() if name == "proofbeat_violations_total"}
    assert all(value in allowed[name] for labels in own for name, value in labels)
    assert sum(own.values()) == len(pairs)


@given(st.text(), st.text())
def test_any_subject_survives_the_text_format(workload: str, namespace: str) -> None:
    made = Recorder("authority")
    # Lines are ended by \n alone; the peer's reader also ends them elsewhere, and takes no NUL.
    workload, namespace = ("".join(each for each in text if each.isprintable()) for text in (workload, namespace))
    made.subject = {"workload": f'{workload}"\\\n', "namespace": namespace}
    for _, labels in samples(made):
        assert dict(labels)["workload"] == f'{workload}"\\\n'
        assert dict(labels)["namespace"] == namespace


@given(st.lists(st.floats(0, 20), min_size=1))
def test_a_histogram_counts_every_value_once_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    made = Recorder("sidecar")
    for value in values:
        made.observe(metrics.CLOSE_SECONDS, value, "swept")
    found = samples(made)
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in found.items()
        if name == "proofbeat_close_seconds_bucket"
    }
    bounds = (*metrics.CLOSE_SECONDS.bounds, float("inf"))
    assert buckets == {bound: sum(value <= bound for value in values) for bound in bounds}
    assert found["proofbeat_close_seconds_count", frozenset({("step", "swept")})] == len(values)
    assert found["proofbeat_close_seconds_sum", frozenset({("step", "swept")})] == pytest.approx(sum(values))


def test_counters_are_there_before_their_first_event_and_a_total_never_goes_back() -> None:
    made = Recorder("sidecar")
    found = samples(made)
    assert found["proofbeat_xds_rejections_total", frozenset()] == 0
    assert found["proofbeat_rounds_total", frozenset({("result", "affirming")})] == 0
    made.raise_to(metrics.EVENTS_LOST, 3.0, "files")
    made.raise_to(metrics.EVENTS_LOST, 2.0, "files")
    assert samples(made)["proofbeat_events_lost_total", frozenset({("collector", "files")})] == 3


def test_a_program_has_only_its_own_metrics() -> None:
    assert not any(name == "proofbeat_issued_total" for name, _ in samples(Recorder("sidecar")))
    assert not any(name == "proofbeat_violations_total" for name, _ in samples(Recorder("authority")))


def test_both_halves_of_a_round_meet_in_one_trace_and_two_rounds_never_do() -> None:
    ours = RoundRecord(1.0, nonce=1.1, measured=1.2, signed=1.3, answered=1.6, served=1.7, value=b"n" * 32)
    theirs = AppraisalRecord(1.4, verified=1.41, appraised=1.42, accepted=1.43, issued=1.5, value=b"n" * 32)
    made, answered = recorder.of_round(ours, {}), recorder.of_appraisal(theirs, {})
    assert made.trace_id == answered.trace_id
    assert answered.parent == made.span_id("answered")
    ids = {each.span_id(stage) for each in (made, answered) for stage, _ in (("", 0.0), *each.marks)}
    assert len(ids) == 11
    assert recorder.of_round(RoundRecord(1.0, value=b"m" * 32), {}).trace_id != made.trace_id


def test_traces_are_kept_for_an_exporter_only_and_the_oldest_gives_way_counted() -> None:
    made = Recorder("sidecar")
    made.traced(lambda: pytest.fail("nobody asked for it"))
    made.traces = deque(maxlen=2)
    for number in range(5):
        made.traced(partial(Spans, Trace.ROUND, bytes([number]) * 16, 0.0, ()))
    assert [each.trace_id[0] for each in made.traces] == [3, 4]
    assert samples(made)["proofbeat_telemetry_dropped_total", frozenset({("what", "trace")})] == 3


def test_spans_follow_each_other_within_their_root() -> None:
    made = Recorder("sidecar")
    record = RoundRecord(10.0, nonce=10.5, measured=11.0, signed=11.5, answered=12.0, served=13.0, value=b"n")
    first = otlp.traces_request(made, [recorder.of_round(record, {"full": True, "sequence": 7})], boot_ns=10**18)
    again = otlp.traces_request(made, [recorder.of_round(RoundRecord(1.0, value=b"m"), {})], boot_ns=10**18)
    request = ExportTraceServiceRequest.FromString(first + again)
    root, *children = request.resource_spans[0].scope_spans[0].spans
    assert len(request.resource_spans) == 2
    assert (root.name, root.parent_span_id) == ("proofbeat.round", b"")
    assert [each.name for each in children] == [f"proofbeat.round.{stage}" for stage in metrics.ATTESTING]
    edges = [root.start_time_unix_nano, *(each.end_time_unix_nano for each in children)]
    assert edges == [10**18 + int(at * 1e9) for at in (10.0, 10.5, 11.0, 11.5, 12.0, 13.0)]
    assert edges[:-1] == [each.start_time_unix_nano for each in children]
    assert root.end_time_unix_nano == edges[-1]
    assert {each.parent_span_id for each in children} == {root.span_id}
    assert {each.key: each.value.WhichOneof("value") for each in root.attributes} == {
        "full": "bool_value",
        "sequence": "int_value",
    }


def test_otlp_tells_the_same_numbers_with_their_types() -> None:
    made = Recorder("sidecar")
    made.subject, made.instance = {"workload": "web"}, "i-1"
    made.count(metrics.VIOLATIONS_SEEN, "file-modified", "drift")
    made.observe(metrics.CLOSE_SECONDS, 0.003, "swept")
    made.watch(metrics.LEASE_REMAINING, lambda: [((), 15.0)])
    request = ExportMetricsServiceRequest.FromString(otlp.metrics_request(made, began_ns=5, now_ns=9))
    (resource,) = request.resource_metrics
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
        "service.name": "proofbeat-sidecar",
        "service.instance.id": "i-1",
        "workload": "web",
    }
    found = {each.name: each for each in resource.scope_metrics[0].metrics}
    (violation,) = found["proofbeat_violations_total"].sum.data_points
    assert found["proofbeat_violations_total"].sum.is_monotonic
    assert (violation.as_double, violation.start_time_unix_nano, violation.time_unix_nano) == (1.0, 5, 9)
    (closing,) = found["proofbeat_close_seconds"].histogram.data_points
    assert (closing.count, closing.sum) == (1, 0.003)
    assert list(closing.explicit_bounds) == list(metrics.CLOSE_SECONDS.bounds)
    assert sum(closing.bucket_counts) == 1
    assert len(closing.bucket_counts) == len(closing.explicit_bounds) + 1
    assert [each.as_double for each in found["proofbeat_lease_remaining_seconds"].gauge.data_points] == [15.0]
    assert {each.unit for each in found.values()} == {"1", "s"}
    assert all(each.type is not Type.COUNTER or each.name.endswith("_total") for each in METRICS)
