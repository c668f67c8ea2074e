"""Where detectors post what they raise, one alert a request: falcosidekick's webhook, Falco's `http_output`.

Who may is told by a token: `Authorization: Bearer TOKEN`, or as the password of Basic, which is what becomes of
`https://falco:TOKEN@HOST/v1/alerts`, since `http_output` sends no headers of one's own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import web

from attestation.detectors import reading
from attestation.detectors.alerts import Alert, Detector
from attestation.errors import InvalidInput, Refused
from authority.alerts import Alerts
from authority.doors import Intake
from telemetry import metrics
from telemetry.names import Event
from telemetry.recorder import Recorder
from wire.problems import Kind

PATH = "/v1/alerts"


class AlertsApi:
    """tokens: SHA-256 of those that may. proven: told of each request that brought one. log: a structured logger."""

    def __init__(
        self,
        alerts: Alerts,
        tokens: Collection[bytes],
        intake: Intake,
        proven: Callable[[web.Request], None],
        recorder: Recorder,
        log: Any,
    ) -> None:
        self._alerts, self._tokens, self._intake = alerts, tuple(tokens), intake
        self._proven, self._recorder, self._log = proven, recorder, log

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self._post)]

    async def _post(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        self._proven(request)
        body = await self._intake.body(request, reading.MOST_BYTES)
        try:
            heard = reading.read(body)
        except InvalidInput:
            self._count("", "malformed")
            raise
        if not isinstance(heard, Alert):
            return web.json_response({"instances": []})
        if self._alerts.too_old(heard):
            self._count(heard.detector, "old")
            raise Refused("an alert about the past, or from the future", kind=Kind.MALFORMED, where="time")
        told = self._alerts.take(heard)
        self._count(heard.detector, "told" if told else "nobodys")
        self._log.warning(
            Event.DETECTOR_ALERT, alert=heard.told, node=heard.about.node, instances=[str(each) for each in told]
        )
        return web.json_response({"instances": [str(each) for each in told]})

    def _authenticate(self, request: web.Request) -> None:
        """Raises Refused (token-invalid)."""
        given = hashlib.sha256(_token(request.headers.get("Authorization", ""))).digest()
        if not any(hmac.compare_digest(given, each) for each in self._tokens):
            raise Refused("no token of a detector", kind=Kind.TOKEN_INVALID, where=PATH, mend="`detectors.tokenFiles`.")

    def _count(self, detector: Detector | str, outcome: str) -> None:
        self._recorder.count(metrics.DETECTOR_ALERTS, str(detector), outcome)


def _token(header: str) -> bytes:
    """Empty for anything else than the two forms that are known."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode(errors="replace")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
