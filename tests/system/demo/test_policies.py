"""The same story under presets, which ask for more than the demo's own policy does."""

from __future__ import annotations

import os

import pytest

from tests.system.demo.stage import told_whole


@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give services users of their own")
def test_under_the_policies_for_payments_and_for_health_records_it_is_the_same_story() -> None:
    told_whole(("--policy", "payments"), ("--policy", "hipaa"))
