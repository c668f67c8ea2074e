"""What Envoy is served while open and while closed, as one consistent snapshot each."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar import denials
from sidecar.config import DeliverySettings
from sidecar.delivery.poison import Poison
from sidecar.denials import Refusals
from xds.resources import ecds, rbac, secrets
from xds.resources.rbac import TypedConfig
from xds.resources.transport import SecretNames
from xds.snapshot import Resource, Snapshot


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM of one lease: leaf first in chain; bundle holds the roots that peers must chain to."""

    chain: bytes
    key: bytes
    bundle: bytes


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Builds the snapshots of one sidecar. ttl: seconds after which Envoy denies by itself unless told again.

    refusals: which peers are refused while it is open, and not reached at any time. standing: what is delivered
    besides, open or closed. listeners: what is delivered while open alone; to take a listener away cuts all that runs
    through it (Envoy is started with no time to drain). Both are empty where Envoy's listeners are somebody else's.
    """

    settings: DeliverySettings
    ttl: float
    refusals: Refusals
    standing: tuple[Resource, ...] = ()
    listeners: tuple[Resource, ...] = ()

    @classmethod
    def under(cls, settings: DeliverySettings, ttl: float, refusals: Refusals | None = None) -> Catalogue:
        """For the mode that the settings name. refusals: None for those of nobody."""
        refused = denials.nobody() if refusals is None else refusals
        if settings.service is None:
            return cls(settings, ttl, refused)
        # Only an Envoy that is delivered everything needs the messages for it.
        from xds.resources import mesh

        service = settings.service.described(SecretNames(settings.certificate, settings.validation))
        endpoints = mesh.endpoints(service, refused.unreachable(service))
        standing = (*mesh.clusters(service), *endpoints, *mesh.routes(service))
        return cls(settings, ttl, refused, standing, mesh.listeners(service, ttl=ttl))

    def opened(self, identity: Identity, ttl: float) -> Snapshot:
        """The identity, filters that let all but the refused pass, and the listeners; both for so many seconds."""
        return Snapshot.of(
            *self._identity(identity),
            *self._filters(self.refusals.http, self.refusals.tcp, ttl),
            *self.standing,
            *self._listening(ttl),
        )

    def opening(self, identity: Identity, reason: str, *, listening_for: float = 0.0) -> Snapshot:
        """The identity while filters still deny: acknowledged first, so that nothing is let in under poison.

        listening_for: seconds that listeners which have drained until now stay; 0 where there are none.
        """
        return self._denying(self._identity(identity), reason, listening_for)

    def closed(self, poison: Poison, reason: str) -> Snapshot:
        """Poison, filters that deny and say why, and no listeners of ours."""
        return self._denying(self._poisoned(poison), reason, 0.0)

    def draining(self, poison: Poison, reason: str, ttl: float) -> Snapshot:
        """As `closed`, but the listeners stay as they were opened with this ttl, and with them what runs through."""
        return self._denying(self._poisoned(poison), reason, ttl)

    def _denying(self, secrets: tuple[Resource, Resource], reason: str, listening_for: float) -> Snapshot:
        listening = self._listening(listening_for) if listening_for > 0 else ()
        filters = self._filters(rbac.http_deny_all(reason), rbac.tcp_deny_all(reason), self.ttl)
        return Snapshot.of(*secrets, *filters, *self.standing, *listening)

    def _listening(self, ttl: float) -> tuple[Resource, ...]:
        """Another lifetime is another version to Envoy's ear only: it keeps a listener whose content is the same."""
        return tuple(each if each.ttl == ttl else each.with_ttl(ttl) for each in self.listeners)

    def _identity(self, identity: Identity) -> tuple[Resource, Resource]:
        """With the CRL of the intermediate that signs leaves: Envoy is to look for no other's."""
        crl = self.refusals.crl or None
        return (
            secrets.tls_certificate(self.settings.certificate, identity.chain, identity.key),
            secrets.validation_context(self.settings.validation, identity.bundle, crl_pem=crl, only_leaf_crl=True),
        )

    def _poisoned(self, poison: Poison) -> tuple[Resource, Resource]:
        return (
            secrets.tls_certificate(self.settings.certificate, poison.chain, poison.key),
            secrets.validation_context(self.settings.validation, poison.bundle),
        )

    def _filters(self, http: TypedConfig, tcp: TypedConfig, ttl: float) -> tuple[Resource, ...]:
        return (
            *(ecds.extension_config(name, http, ttl=ttl) for name in self.settings.http_filters),
            *(ecds.extension_config(name, tcp, ttl=ttl) for name in self.settings.tcp_filters),
        )
