"""Filter configurations delivered by extension config discovery (envoy.config.core.v3.TypedExtensionConfig)."""

from __future__ import annotations

from xds.messages import TYPED_EXTENSION_CONFIG, encode
from xds.resources.rbac import TypedConfig
from xds.snapshot import Resource, type_url

EXTENSION_CONFIG_TYPE = type_url(TYPED_EXTENSION_CONFIG)


def extension_config(name: str, config: TypedConfig, *, ttl: float | None = None) -> Resource:
    """The configuration of the filter that Envoy knows as `name`.

    With `ttl` (seconds) Envoy falls back to the filter's default_config unless heartbeats keep coming.
    """
    typed = {"type_url": config.type_url, "value": config.body}
    body = encode(TYPED_EXTENSION_CONFIG, name=name, typed_config=typed)
    return Resource.of(EXTENSION_CONFIG_TYPE, name, body, ttl=ttl)
