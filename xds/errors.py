"""What can go wrong in an xDS server.

XdsError
  SnapshotError          a snapshot that would mislead Envoy
    DuplicateResource
    DanglingReference
  SocketError            the server's socket cannot be had
    SocketInUse
    SocketUnusable
  PeerError              the process at the other end cannot be pinned down
  StreamError            one gRPC stream must end; carries the gRPC status
  BootstrapError         a description no Envoy could serve safely
  ConfigurationError     a field that our messages do not have
  DenialError            a peer named in a way that Envoy would never find
"""

from __future__ import annotations

from enum import IntEnum


class XdsError(Exception):
    """Base of everything this package raises on purpose."""


class SnapshotError(XdsError):
    """The resources do not form a consistent set."""


class DuplicateResource(SnapshotError):
    """Two resources share a type and a name."""

    def __init__(self, type_url: str, name: str) -> None:
        super().__init__(f"snapshot: {name!r} of {type_url} is given twice; give each resource its own name")


class DanglingReference(SnapshotError):
    """A resource points at one that the snapshot does not hold."""

    def __init__(self, holder: str, type_url: str, name: str) -> None:
        super().__init__(
            f"snapshot: {holder!r} refers to {name!r} of {type_url}, which is missing; add it to the same snapshot"
        )


class SocketError(XdsError):
    """The Unix socket cannot be served."""


class SocketInUse(SocketError):
    """A living server answers on the path."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"socket {path}: a running server already answers there; stop it or choose another socket path"
        )


class SocketUnusable(SocketError):
    """The path cannot hold our socket."""

    def __init__(self, path: object, why: str, mend: str) -> None:
        super().__init__(f"socket {path}: {why}; {mend}")


class PeerError(XdsError):
    """The connecting process could not be identified beyond doubt, so it is refused."""


class BootstrapError(XdsError):
    """The description of the sidecar's listeners and upstreams is incomplete or contradictory."""


class ConfigurationError(XdsError):
    """A listener, cluster, route or endpoint says something that our messages have no field for."""


class DenialError(XdsError):
    """A denied peer is named in a way that Envoy would acknowledge and never find: it would deny nobody."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"denial: {what} names no certificate as Envoy writes it; {mend}")


class GrpcStatus(IntEnum):
    """The gRPC status codes used here (gRPC, doc/statuscodes.md)."""

    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class StreamError(XdsError):
    """A client broke the protocol on one stream, which ends with this status; other streams go on."""

    def __init__(self, status: GrpcStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
