"""The two bootstraps: of an Envoy that is delivered its secrets and filters, and of one that is delivered everything.

Never put `ads: {}` into a static cluster: Envoy 1.40 crashes on it. The first has an incremental source of its own for
secrets and filters; the second has no static cluster but the one that leads to the server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xds.resources.clusters import app_cluster, peer_cluster
from xds.resources.listeners import inbound_listener, outbound_listener
from xds.resources.service import Service
from xds.resources.transport import (
    Json,
    aggregated_source,
    config_source,
    incremental_stream,
    seconds,
    xds_cluster,
)

_ADMIN_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The whole of one sidecar Envoy.

    `before_first`: "silent" leaves Envoy initialising, its ports unbound, until the first secrets come; "refuse"
    lets it go live at once, for a server that always has secrets to give.
    """

    node_id: str
    node_cluster: str
    xds_socket: Path
    admin_socket: Path
    service: Service
    before_first: Literal["silent", "refuse"] = "silent"
    refuse_after_seconds: float = 1.0


def envoy_bootstrap(description: Bootstrap) -> Json:
    """The bootstrap as a plain JSON object."""
    source, service = config_source(_initial_fetch_timeout(description)), description.service
    return {
        **_identified(description.node_id, description.node_cluster, description.admin_socket),
        "static_resources": {
            "listeners": [
                *(inbound_listener(service, source, inbound) for inbound in service.inbound),
                *(outbound_listener(service, source, upstream) for upstream in service.upstreams),
            ],
            "clusters": [
                xds_cluster(description.xds_socket),
                *(app_cluster(inbound) for inbound in service.inbound),
                *(peer_cluster(service, source, upstream) for upstream in service.upstreams),
            ],
        },
    }


def delivered_bootstrap(node_id: str, node_cluster: str, xds_socket: Path, admin_socket: Path) -> Json:
    """The bootstrap of an Envoy that is delivered everything over one aggregated stream: it says only from where."""
    everything = aggregated_source()
    return {
        **_identified(node_id, node_cluster, admin_socket),
        "dynamic_resources": {
            "ads_config": incremental_stream(),
            "cds_config": everything,
            "lds_config": everything,
        },
        "static_resources": {"clusters": [xds_cluster(xds_socket)]},
    }


def write_bootstrap(bootstrap: Json, path: Path) -> None:
    """Write a bootstrap to `path` (mode 0600), complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(bootstrap, file, indent=1)
    temporary.rename(path)


def envoy_command(
    envoy: Path | str,
    config: Path,
    *,
    concurrency: int = 2,
    base_id: int | None = None,
    hot_restart: bool = True,
    log_level: str = "warning",
    extra: Sequence[str] = (),
) -> list[str]:
    """The argument list that runs Envoy on `config`.

    `--drain-time-s 0` has a removed or replaced listener cut its connections at once instead of draining them for
    ten minutes. `--base-id` keeps the shared memory of Envoys on one host apart; without a number Envoy picks a
    free one (`--use-dynamic-base-id`). Without `hot_restart` there is no such memory, and no socket over which a
    successor of the same user could be handed the listeners. `--concurrency` is the number of worker threads, by
    default one a core, which is too many for a sidecar.
    """
    base = ["--use-dynamic-base-id"] if base_id is None else ["--base-id", str(base_id)]
    if not hot_restart:
        base = ["--disable-hot-restart"]
    return [
        str(envoy),
        "--config-path",
        str(config),
        "--drain-time-s",
        "0",
        "--concurrency",
        str(concurrency),
        "--log-level",
        log_level,
        *base,
        *extra,
    ]


def _identified(node_id: str, node_cluster: str, admin_socket: Path) -> Json:
    return {
        "node": {"id": node_id, "cluster": node_cluster},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": _ADMIN_MODE}}},
    }


def _initial_fetch_timeout(description: Bootstrap) -> str:
    """0 waits for ever, with the ports unbound; any other time ends in Envoy going live without secrets."""
    return "0s" if description.before_first == "silent" else seconds(description.refuse_after_seconds)
