"""Whom our Envoy refuses because the authority says so: what a list comes to, and which one Envoy carries out.

A quarantined instance closes itself. This is for the day when it does not: its peers refuse it as a caller, by what its
certificate is, and do not call it any more. Only that instance; others of its SPIFFE ID go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Self

from attestation import addresses
from attestation.errors import InvalidInput
from sidecar.peers import Peers
from wire.messages import Denials, Denied
from xds.resources.denials import DeniedPeer, http_deny_peers, tcp_deny_peers
from xds.resources.rbac import TypedConfig
from xds.resources.service import HostPort, Service, Upstream

REASON = "peer-denied"
"""Begins what a refused peer reads; the name of the cause follows, to ask the authority about."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """One list, as Envoy is served it. version: the authority's. crl: PEM, or empty where there is none.

    http, tcp: the filters of an Envoy that is open. subjects: of the denied's certificates. listening: where the denied
    listen, each with its SPIFFE ID.
    """

    version: int
    crl: bytes
    http: TypedConfig
    tcp: TypedConfig
    subjects: frozenset[str] = frozenset()
    listening: tuple[tuple[str, HostPort], ...] = ()

    @classmethod
    def of(cls, denials: Denials) -> Self:
        """Of a list that was believed. Filters are made here, once, since every lease serves them again."""
        peers = [_peer(each) for each in denials.denied]
        listening = [
            (each.spiffe_id, HostPort(*addresses.parse(address)))
            for each in denials.denied
            for address in each.addresses
        ]
        filters = http_deny_peers(peers), tcp_deny_peers(peers)
        subjects = frozenset(subject for peer in peers for subject in peer.subjects)
        return cls(denials.version, denials.crl, *filters, subjects, tuple(listening))

    def unreachable(self, service: Service) -> Mapping[str, frozenset[HostPort]]:
        """The addresses that each upstream, by its name, has to do without.

        Only those of instances that the upstream would take for its peer: a list can take away nobody else's address.
        """
        return {each.name: self._denied_to(each) for each in service.upstreams}

    def addresses(self, service: Service) -> tuple[str, ...]:
        """To where an Envoy with these upstreams may have nothing open any more."""
        found = {address for upstream in service.upstreams for address in self._denied_to(upstream)}
        return tuple(sorted(addresses_of(found)))

    def among(self, peers: Peers) -> tuple[str, ...]:
        """The same for an Envoy whose upstreams are not ours to know.

        Where it listens a denied instance says itself: it may name whatever Envoy has connections to.
        """
        found = {address for _, address in self.listening if peers.named(address)}
        return tuple(sorted(addresses_of(found)))

    def _denied_to(self, upstream: Upstream) -> frozenset[HostPort]:
        present = frozenset(upstream.peers)
        return frozenset(
            address
            for identity, address in self.listening
            if address in present and upstream.identities.admit(identity)
        )


def addresses_of(hosts: Iterable[HostPort]) -> tuple[str, ...]:
    """In the form that the measurer reads, without those that have none (a link-local address with its zone)."""
    found: list[str] = []
    for each in hosts:
        with suppress(InvalidInput):
            found.append(addresses.address(each.host, each.port))
    return tuple(found)


@cache
def nobody() -> Refusals:
    """Before the first list."""
    return Refusals.of(Denials(0, (), b""))


def _peer(denied: Denied) -> DeniedPeer:
    """By its subject as well: it covers certificates that the list had no room for."""
    return DeniedPeer(
        f"{REASON}:{denied.cause}",
        fingerprints=tuple(leaf.fingerprint for leaf in denied.leaves),
        subjects=(f"OU={denied.instance.value},O=Proofbeat",),
    )
