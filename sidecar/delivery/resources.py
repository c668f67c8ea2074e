"""What Envoy is served while open and while closed, as one consistent snapshot each."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config import DeliverySettings
from sidecar.delivery.poison import Poison
from xds.resources import ecds, rbac, secrets
from xds.snapshot import Resource, Snapshot


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM of one lease: leaf first in chain; bundle holds the roots that peers must chain to."""

    chain: bytes
    key: bytes
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Builds the snapshots of one sidecar. ttl: seconds after which Envoy denies by itself unless told again."""

    settings: DeliverySettings
    ttl: float

    def opened(self, identity: Identity) -> Snapshot:
        """The identity, and filters that let requests pass."""
        return Snapshot.of(*self._secrets(identity.chain, identity.key, identity.bundle), *self._filters(None))

    def opening(self, identity: Identity, reason: str) -> Snapshot:
        """The identity while filters still deny: acknowledged first, so that nothing is let in under poison."""
        return Snapshot.of(*self._secrets(identity.chain, identity.key, identity.bundle), *self._filters(reason))

    def closed(self, poison: Poison, reason: str) -> Snapshot:
        """Poison, and filters that deny and say why."""
        return Snapshot.of(*self._secrets(poison.chain, poison.key, poison.bundle), *self._filters(reason))

    def _secrets(self, chain: bytes, key: bytes, bundle: bytes) -> tuple[Resource, Resource]:
        return (
            secrets.tls_certificate(self.settings.certificate, chain, key),
            secrets.validation_context(self.settings.validation, bundle),
        )

    def _filters(self, reason: str | None) -> tuple[Resource, ...]:
        http = rbac.http_allow_all() if reason is None else rbac.http_deny_all(reason)
        tcp = rbac.tcp_allow_all() if reason is None else rbac.tcp_deny_all(reason)
        return (
            *(ecds.extension_config(name, http, ttl=self.ttl) for name in self.settings.http_filters),
            *(ecds.extension_config(name, tcp, ttl=self.ttl) for name in self.settings.tcp_filters),
        )
