"""HTTP towards the authority: one POST at a time, or a WebSocket. What fails on the way becomes Unavailable.

Nothing that the other side says is followed, unpacked or read without an end: no redirects, no compression, no
cookies, no body larger than a frame, no waiting beyond the time given.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import InvalidInput, Refused, Unavailable
from attestation.instance import InstanceId
from wire import link, messages, problems, proofs, tls, versions
from wire.messages import Hello, Reply
from wire.problems import Kind, Problem
from wire.proofs import Purpose
from wire.versions import Version

HEARTBEAT = 20.0
_SESSION = "/v1/session"
_CHALLENGE = re.compile(r'Proofbeat challenge="([A-Za-z0-9_-]{1,400})"')
_OFFER = {versions.HEADER: str(versions.OURS)}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the authority is, and how it is known. url: https://host:port. bundle: PEM."""

    url: str
    trust_domain: str
    bundle: str


@dataclass(frozen=True, slots=True)
class Opening:
    """A session's WebSocket, and the version that is spoken on it."""

    socket: aiohttp.ClientWebSocketResponse
    version: Version


class Transport:
    """timeout: seconds for one answer. Raises InvalidConfiguration for a useless bundle."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        tls.shrink_buffers()
        self._url = endpoint.url.rstrip("/")
        self._seconds = timeout
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tls = tls.client_context(endpoint.bundle, endpoint.trust_domain)
        self._http: aiohttp.ClientSession | None = None
        self._version = versions.FIRST

    @property
    def version(self) -> Version:
        """What the authority chose when it last answered."""
        return self._version

    @property
    def closed(self) -> bool:
        return self._http is not None and self._http.closed

    async def post(self, path: str, body: Callable[[Version], bytes]) -> Reply:
        """body: the request as a version knows it. Every request is safe to repeat: where the authority turns out to
        speak another version than before, and so did not understand, it is made once more.

        Raises what a problem document means, Unavailable, and InvalidInput for what is no answer.
        """
        spoken = self._version
        answer = await self._once(path, body(spoken))
        if isinstance(answer, Problem) and self._version != spoken:
            answer = await self._once(path, body(self._version))
        return link.checked(answer)

    async def open_session(self, instance: InstanceId, key: ec.EllipticCurvePrivateKey) -> Opening:
        """Proves possession of the key over a challenge.

        Raises Refused (instance-unknown), Unavailable, and InvalidInput for a version that was not offered.
        """
        async with self._reaching(), asyncio.timeout(self._seconds):
            hello = Hello(instance, await self._challenge())
            version = self._version
            proof = base64.urlsafe_b64encode(proofs.seal(hello, Purpose.SESSION, key)).decode()
            socket = await self._client().ws_connect(
                self._url + _SESSION,
                headers={"Authorization": f"Proofbeat {proof}", versions.HEADER: str(version)},
                heartbeat=HEARTBEAT,
                max_msg_size=messages.MOST_FRAME,
            )
        return Opening(socket, version)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def _once(self, path: str, body: bytes) -> messages.Message:
        headers = {"Content-Type": messages.MEDIA_TYPE, **_OFFER}
        async with self._reaching():
            url = self._url + path
            async with self._client().post(
                url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                content = await self._content(answer)
        self._version = versions.chosen(answer.headers.get(versions.HEADER))
        if answer.content_type == problems.MEDIA_TYPE:
            return problems.from_json(content)
        if answer.status != 200:
            raise Unavailable(f"status {answer.status}, and no problem document", where=self._url, mend=_MEND_URL)
        return self._parsed(content)

    def _parsed(self, content: bytes) -> messages.Message:
        try:
            return messages.decode(content, version=self._version).message
        except InvalidInput as error:
            what = f"an answer that does not parse ({error.sentence})"
            raise InvalidInput(what, where=self._url, mend=_MEND_URL) from error

    async def _content(self, answer: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for part in answer.content.iter_any():
            content += part
            if len(content) > messages.MOST_FRAME:
                raise InvalidInput("an answer larger than any message", where=self._url, mend=_MEND_URL)
        return bytes(content)

    async def _challenge(self) -> bytes:
        async with self._client().get(
            self._url + _SESSION, headers=_OFFER, timeout=self._timeout, allow_redirects=False
        ) as answer:
            found = _CHALLENGE.fullmatch(answer.headers.get("WWW-Authenticate", ""))
            self._version = versions.chosen(answer.headers.get(versions.HEADER))
        try:
            if found is not None:
                return base64.b64decode(found[1] + "=" * (-len(found[1]) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            pass
        raise Unavailable("no challenge for a session", where=self._url, mend=_MEND_URL)

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
            raise Unavailable(f"the authority cannot be reached: {said}", where=self._url, mend=_MEND_REACH) from error

    def _client(self) -> aiohttp.ClientSession:
        """Made inside the running loop, where aiohttp wants it."""
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=4),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                middlewares=(_not_elsewhere,),
            )
        return self._http


async def _not_elsewhere(request: aiohttp.ClientRequest, ask: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """A WebSocket's opening cannot be told not to follow redirects."""
    answer = await ask(request)
    if 300 <= answer.status < 400:
        answer.close()
        raise aiohttp.ClientError(f"it answers with a redirect ({answer.status}), which is not followed")
    return answer


_MEND_URL = "Is this address the authority's own? Check `authority.url`."
_MEND_REACH = "Check that it runs and that `authority.url` and `authority.bundle` are its own."
