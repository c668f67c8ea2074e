"""The Go peers: where `make bench-peers` puts them, and what to say where they are not."""

from __future__ import annotations

import os
from pathlib import Path

MAKE = "make bench-peers"
MISSING = {"missing": f"it is not built here; `{MAKE}` builds it, with Go"}


def binary(name: str) -> Path | None:
    """The built program of tools/peers/NAME, or None."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "proofbeat" / "peers" / name
    return built if os.access(built, os.X_OK) else None
