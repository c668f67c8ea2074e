"""Every event name a program logs. One file, so that a reader of logs and a writer of them cannot drift apart."""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """The `event` key of a log line."""

    STARTED = "started"
    ENROLLED = "enrolled"
    ENROLMENT_REFUSED = "enrolment-refused"
    ENVOY_STARTED = "envoy-started"
    ENVOY_ENDED = "envoy-ended"
    ENVOY_ADMITTED = "envoy-admitted"
    ENVOY_REFUSED = "envoy-refused"
    ENVOY_REJECTED = "envoy-rejected"
    KEY_SOCKET_LOST = "key-socket-lost"
    PHASE = "phase"
    ROUND = "round"
    ROUND_FAILED = "round-failed"
    RESULT_DROPPED = "result-dropped"
    PUSH_REFUSED = "push-refused"
    VIOLATION = "violation"
    WOULD_HAVE = "would-have"
    DRAINING = "draining"
    CLOSED = "closed"
    OPENED = "opened"
    ESCALATED = "escalated"
    ADDRESSES_REFUSED = "addresses-refused"
    DENIED = "denied"
    REFUSES = "refuses"
    SEVERED = "severed"
    DENIALS_LATE = "denials-late"
    DENIALS_CUT = "denials-cut"
    ADDRESS_SPARED = "address-spared"
    REFERENCES_EXPIRE = "references-expire"
    REFERENCES_EXPIRED = "references-expired"
    REPORTED = "reported"
    COVERAGE = "coverage"
    MEASURER_LOST = "measurer-lost"
    LISTENING = "listening"
    STOPPED = "stopped"
