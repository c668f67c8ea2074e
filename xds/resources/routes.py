"""Route tables (as JSON)."""

from __future__ import annotations

from xds.resources.transport import Json


def everything_to(name: str, cluster: str) -> Json:
    """One table that sends every request to one cluster, however long it takes, WebSockets included."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    return {"name": name, "virtual_hosts": [{"name": cluster, "domains": ["*"], "routes": [route]}]}
