"""What is behind a layer's digest: the layer, packed; and under which domain each kind of it is hashed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attestation import calls, manifest, memory, processes, proxy
from attestation.digests import Digest
from attestation.layers import Layer

DIGEST_OF: Mapping[Layer, Callable[[bytes], Digest]] = {
    Layer.FILES: manifest.digest,
    Layer.PROCESSES: processes.digest,
    Layer.PROXY: proxy.digest,
    Layer.SYSCALLS: calls.digest,
    Layer.MEMORY: memory.digest,
}
"""Layers that are not here have no body."""
