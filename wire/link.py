"""One open WebSocket: requests find their answers by number, pushes go to a callback."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import get_args

import aiohttp

from attestation.errors import InvalidInput, Unavailable
from wire import messages, problems
from wire.messages import Frame, Message, Push, Reply, Request
from wire.problems import Problem
from wire.versions import Version

MEND_CONVERSATION = "Are sidecar and authority of releases that go together? Look at the authority's log."


class Link:
    """Lives as long as its WebSocket. `read` must run while `ask` waits. version: what is spoken on it."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, on_push: Callable[[Push], None], version: Version
    ) -> None:
        self._socket = socket
        self._version = version
        self._on_push = on_push
        self._numbers = itertools.count(messages.PUSH + 1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}

    async def ask(self, request: Request, timeout: float) -> Reply:
        """The answer. Raises what a Problem means, and Unavailable when none came within `timeout` seconds."""
        number = next(self._numbers)
        frame = messages.encode(request, number, version=self._version)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout):
                await self._socket.send_bytes(frame)
                reply = await answer
        except TimeoutError as error:
            raise Unavailable(f"no answer within {timeout:g} s", where="authority session") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unavailable(f"the session broke: {error}", where="authority session") from error
        finally:
            self._waiting.pop(number, None)
        return checked(reply)

    async def read(self) -> None:
        """Until the session ends, by whichever side. Everybody who still waits then gets Unavailable.

        Raises InvalidInput when the authority sends what is no message.
        """
        try:
            async for received in self._socket:
                if received.type is not aiohttp.WSMsgType.BINARY:
                    raise InvalidInput(f"a {received.type.name} frame", where="authority session")
                self._take(messages.decode(received.data, version=self._version))
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Unavailable("the session ended", where="authority session"))

    async def close(self) -> None:
        await self._socket.close()

    def _take(self, frame: Frame) -> None:
        if frame.number == messages.PUSH:
            if not isinstance(frame.message, get_args(Push)):
                raise InvalidInput(f"a {type(frame.message).__name__} as a push", where="authority session")
            self._on_push(frame.message)
            return
        answer = self._waiting.get(frame.number)
        if answer is not None and not answer.done():
            answer.set_result(frame.message)


def checked(message: Message) -> Reply:
    """A message as an answer. Raises what a Problem means, and InvalidInput for what answers nothing."""
    if isinstance(message, Problem):
        raise problems.error_of(message)
    if not isinstance(message, get_args(Reply)):
        raise InvalidInput(f"{type(message).__name__} as an answer", where="authority", mend=MEND_CONVERSATION)
    reply: Reply = message
    return reply
