"""Warnings of the reference implementation of Envoy's API are not ours to mend."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:Using `@model_validator` with mode='after':DeprecationWarning")
