"""One type on one stream, its server's editions, and a client that asks and answers: no socket, no bytes."""

from __future__ import annotations

from typing import TypeVar

from xds.delta import DeltaStream
from xds.ledger import Answer, Edition, Response
from xds.messages import DeltaRequest, SotwRequest
from xds.snapshot import Resource, Snapshot
from xds.sotw import SotwStream

T = "type.googleapis.com/t"
Found = TypeVar("Found")


class DeltaTalk:
    """An incremental stream and the edition it is brought to. `final` says whether what is absent stays absent."""

    def __init__(self, *resources: Resource, type_url: str = T, final: bool = False) -> None:
        self.stream = DeltaStream(type_url)
        self._complete = (type_url,) if final else ()
        self._sequence = 0
        self._nonce = 0
        self.publish(*resources)

    def publish(self, *resources: Resource) -> None:
        self._sequence += 1
        self.edition = Edition(Snapshot.of(*resources, complete=self._complete), self._sequence)

    def ask(
        self, *subscribe: str, without: tuple[str, ...] = (), holding: dict[str, str] | None = None
    ) -> Response | None:
        self.stream.receive(DeltaRequest(self.stream.type_url, subscribe, without, holding))
        return self.respond()

    def respond(self) -> Response | None:
        self._nonce += 1
        return self.stream.respond(self.edition, str(self._nonce))

    def accept(self, response: Response | None) -> Answer | None:
        return self.stream.receive(DeltaRequest(self.stream.type_url, nonce=there(response).nonce))

    def reject(self, response: Response | None, reason: str) -> Answer | None:
        return self.stream.receive(DeltaRequest(self.stream.type_url, nonce=there(response).nonce, rejection=reason))

    def beat(self) -> Response | None:
        """A heartbeat, where anything is to be kept alive."""
        self._nonce += 1
        return self.stream.heartbeat(self.edition, str(self._nonce))

    @property
    def unanswered(self) -> frozenset[str]:
        """The nonces that the present edition waits for."""
        return self.stream.ledger.unanswered(self.edition.snapshot)


class SotwTalk:
    """A state-of-the-world stream, the edition it is brought to, and a client that answers properly."""

    def __init__(self, *resources: Resource, type_url: str = T) -> None:
        self.stream = SotwStream(type_url)
        self._type = type_url
        self._sequence = 0
        self._nonce = 0
        self.version = ""
        self.nonce = ""
        self.publish(*resources)

    def publish(self, *resources: Resource) -> None:
        self._sequence += 1
        self.edition = Edition(Snapshot.of(*resources), self._sequence)

    def ask(self, *names: str) -> Response | None:
        self.stream.receive(SotwRequest(self._type, names, self.version, self.nonce))
        return self.respond()

    def respond(self) -> Response | None:
        self._nonce += 1
        response = self.stream.respond(self.edition, str(self._nonce))
        if response is not None:
            self.nonce = response.nonce
        return response

    def accept(self, response: Response | None, *names: str) -> Answer | None:
        self.version = there(response).version
        return self.stream.receive(SotwRequest(self._type, names, self.version, there(response).nonce))


def there(found: Found | None) -> Found:
    """What must have come."""
    assert found is not None
    return found


def told(response: Response | None) -> tuple[Resource, ...]:
    """What a response that must be there carries."""
    return there(response).resources


def said(response: Response | None) -> tuple[tuple[Resource, ...], tuple[str, ...]]:
    """The same, and beside it what is gone."""
    return there(response).resources, there(response).removed


def told_names(response: Response | None) -> list[str]:
    """The same by name, in order of names."""
    return sorted(resource.name for resource in told(response))
