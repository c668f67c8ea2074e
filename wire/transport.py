"""HTTP towards the authority: one POST at a time, or a WebSocket. What fails on the way becomes Unavailable."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import Refused, Unavailable
from attestation.instance import InstanceId
from wire import link, messages, problems, proofs, tls
from wire.messages import Hello, Reply
from wire.problems import Kind
from wire.proofs import Purpose

HEARTBEAT = 20.0
_SESSION = "/v1/session"
_CHALLENGE = re.compile(r'Proofbeat challenge="([A-Za-z0-9_-]+)"')


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the authority is, and how it is known. url: https://host:port. bundle: PEM."""

    url: str
    trust_domain: str
    bundle: str


class Transport:
    """timeout: seconds for one answer. Raises InvalidConfiguration for a useless bundle."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        tls.shrink_buffers()
        self._url = endpoint.url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tls = tls.client_context(endpoint.bundle, endpoint.trust_domain)
        self._http: aiohttp.ClientSession | None = None

    @property
    def closed(self) -> bool:
        return self._http is not None and self._http.closed

    async def post(self, path: str, body: bytes) -> Reply:
        """Raises what a problem document means, and Unavailable."""
        async with self._reaching():
            headers = {"Content-Type": messages.MEDIA_TYPE}
            url = self._url + path
            async with self._client().post(url, data=body, headers=headers, timeout=self._timeout) as answer:
                content = await answer.read()
        if answer.content_type == problems.MEDIA_TYPE:
            raise problems.error_of(problems.from_json(content))
        if answer.status != 200:
            raise Unavailable(f"status {answer.status}", where=self._url)
        return link.checked(messages.decode(content).message)

    async def open_session(
        self, instance: InstanceId, key: ec.EllipticCurvePrivateKey
    ) -> aiohttp.ClientWebSocketResponse:
        """Proves possession of the key over a challenge. Raises Refused (instance-unknown) and Unavailable."""
        async with self._reaching():
            hello = Hello(instance, await self._challenge())
            proof = base64.urlsafe_b64encode(proofs.seal(hello, Purpose.SESSION, key)).decode()
            return await self._client().ws_connect(
                self._url + _SESSION,
                headers={"Authorization": f"Proofbeat {proof}"},
                heartbeat=HEARTBEAT,
                max_msg_size=messages.MOST_FRAME,
            )

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def _challenge(self) -> bytes:
        async with self._client().get(self._url + _SESSION, timeout=self._timeout) as answer:
            found = _CHALLENGE.fullmatch(answer.headers.get("WWW-Authenticate", ""))
        if found is None:
            raise Unavailable("no challenge for a session", where=self._url)
        return base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4))

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        try:
            yield
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise Refused(
                    "the authority does not know this instance under this key",
                    kind=Kind.INSTANCE_UNKNOWN,
                    where=self._url,
                    mend="Enrol again.",
                ) from error
            raise Unavailable(f"no session: status {error.status}", where=self._url) from error
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"the authority cannot be reached: {said}", where=self._url) from error

    def _client(self) -> aiohttp.ClientSession:
        """Made inside the running loop, where aiohttp wants it."""
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls, limit=4))
        return self._http
