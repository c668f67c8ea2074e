"""What the attacks need of this machine."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here plays several users."""
    needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it plays several users at once")
    for item in items:
        if "attacks" in item.path.parts:
            item.add_marker(needs_root)
