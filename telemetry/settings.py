"""The `telemetry` part of a program's settings. Nothing in it: nothing is exported, and nothing is loaded for it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_validator, model_validator
from pydantic.alias_generators import to_camel

from attestation.errors import InvalidInput
from attestation.quantities import duration, seconds


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


def _seconds(value: object) -> float:
    try:
        return seconds(str(value))
    except InvalidInput as error:
        raise ValueError("a duration has a unit: 250ms, 10s, 5m") from error


class OtlpSettings(_Strict):
    """endpoint: the collector's base URL; `/v1/metrics` and `/v1/traces` are added.

    headers_file: lines of `Name: value`, for credentials. interval: between two exports, `10s`.
    """

    endpoint: str
    headers_file: Path | None = None
    interval: Annotated[float, BeforeValidator(_seconds), Field(ge=0.1, le=3600.0), PlainSerializer(duration)] = 10.0

    @field_validator("endpoint")
    @classmethod
    def _http(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("an http:// or https:// address is needed, with credentials in `headersFile` only")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _no_credentials_in_the_clear(self) -> Self:
        if self.headers_file is not None and self.endpoint.startswith("http://") and not _loopback(self.endpoint):
            raise ValueError("headersFile needs an https:// endpoint, or one on this machine")
        return self


class TelemetrySettings(_Strict):
    """listen: where `/metrics` is served: `unix:PATH` (mode 0600) or `HOST:PORT`. Whoever reads it often enough can
    time rounds: prefer the socket.
    """

    listen: str = Field(default="", pattern=r"^(|unix:.+|(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5})$")
    otlp: OtlpSettings | None = None

    def below(self, folder: Path) -> TelemetrySettings:
        """With relative paths counted from this folder."""
        listen, otlp = self.listen, self.otlp
        if listen.startswith("unix:"):
            listen = f"unix:{folder / listen.removeprefix('unix:')}"
        if otlp is not None and otlp.headers_file is not None:
            otlp = otlp.model_copy(update={"headers_file": folder / otlp.headers_file})
        return self.model_copy(update={"listen": listen, "otlp": otlp})


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
