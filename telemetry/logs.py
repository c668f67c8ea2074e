"""Structured logs on stderr, one JSON object a line, with secrets taken out whatever the caller passes."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

REDACTED = "[redacted]"
_SECRET_WORDS = ("token", "ticket", "secret", "private", "password", "authorization")


def configure(program: str, stream: TextIO | None = None) -> None:
    """Once, at a program's start. Every line carries `program`, `event`, `level` and `time` (ISO 8601, UTC)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            redact,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(program=program)


def logger() -> Any:
    """The configured logger; any keyword becomes a field of the line."""
    return structlog.get_logger()


def redact(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces every value whose name says secret, and every PEM private key wherever it stands."""
    for name, value in fields.items():
        secret = any(word in name.lower() for word in _SECRET_WORDS)
        if secret or (isinstance(value, str | bytes) and b"PRIVATE KEY" in _bytes(value)):
            fields[name] = REDACTED
    return fields


def _bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value
