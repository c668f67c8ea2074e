"""The Go peer: where `make bench-peers` puts it, and what to say where it is not."""

from __future__ import annotations

import os
from pathlib import Path

MAKE = "make bench-peers"
MISSING = {"missing": f"it is not built here; `{MAKE}` builds it, with Go"}


def binary() -> Path | None:
    """The built program of tools/peers/xds, or None."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "proofbeat" / "peers" / "xds"
    return built if os.access(built, os.X_OK) else None
