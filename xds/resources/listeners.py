"""Listeners (as JSON): mutual TLS towards peers, plaintext towards the application, a delivered filter on every way."""

from __future__ import annotations

from dataclasses import replace

from xds.resources.denials import peer_marks
from xds.resources.filters import Chain, file_log, http_filters, tcp_filters
from xds.resources.service import Application, Inbound, Service, Upstream
from xds.resources.transport import Json, downstream_tls, seconds


def inbound_listener(service: Service, source: Json, inbound: Inbound) -> Json:
    """Where peers call. `source` is where secrets and filters come from, and routes where it brings everything."""
    chain = replace(
        _chain(service, source, inbound.name, inbound.cluster, service.filters.inbound(inbound.protocol)),
        tells_callers=True,
    )
    alpn = ["h2", "http/1.1"] if inbound.protocol == "http" else []
    return {
        "name": inbound.name,
        "address": inbound.listen.envoy(),
        "access_log": [file_log(service.access_log, inbound.name, "connection")],
        "filter_chains": [
            {
                "transport_socket": downstream_tls(source, service.secrets, inbound.callers, alpn),
                "filters": [peer_marks(), *_filters(chain, inbound.protocol)],
            }
        ],
    }


def outbound_listener(service: Service, source: Json, upstream: Upstream) -> Json:
    """Where the application calls a peer."""
    chain = _chain(service, source, upstream.listener, upstream.name, service.filters.outbound(upstream.protocol))
    return {
        "name": upstream.listener,
        "address": upstream.listen.envoy(),
        "filter_chains": [{"filters": _filters(chain, upstream.protocol)}],
    }


def _filters(chain: Chain, protocol: Application) -> list[Json]:
    return http_filters(chain) if protocol == "http" else tcp_filters(chain)


def _chain(service: Service, source: Json, name: str, cluster: str, filter_name: str) -> Chain:
    cap = service.max_connection_seconds
    return Chain(
        name,
        cluster,
        filter_name,
        source,
        service.access_log,
        service.deny_reason,
        None if cap is None else seconds(cap),
        delivered_routes="ads" in source,
    )
