"""Structured logs on stderr, one JSON object a line, with secrets taken out whatever the caller passes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TextIO, cast

from telemetry.redaction import redacted


def configure(program: str, stream: TextIO | None = None) -> None:
    """Once, at a program's start. Every line carries `program`, `event`, `level` and `time` (ISO 8601, UTC)."""
    structlog = _structlog()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(program=program)


def logger() -> Any:
    """The configured logger; any keyword becomes a field of the line."""
    return _structlog().get_logger()


def redact(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Stands last before the line is rendered, after everything that adds to it, tracebacks included."""
    return dict(redacted(fields))


def _structlog() -> Any:
    """Without rich, which it would import for a console that we never have: a tenth of a sidecar's start."""
    with _absent("rich"):
        import structlog
    return structlog


@contextmanager
def _absent(name: str) -> Iterator[None]:
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    kept = {name: modules[name]} if name in modules else {}
    modules[name] = None
    try:
        yield
    finally:
        del modules[name]
        modules.update(kept)
