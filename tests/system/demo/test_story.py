"""The main job as a user runs it: real services, Envoys, kernel and traffic, judged by the traffic.

One file, so that no more than two demos are told at once: four would keep two cores busy for longer than a lease lasts.
"""

from __future__ import annotations

import os

import pytest

from tests.system.demo.stage import told_whole


@pytest.mark.timeout(240)
def test_two_demos_at_once_one_in_each_mode_tell_the_whole_story_and_nothing_leaks() -> None:
    told_whole(("--delivery", "sds"), ("--delivery", "xds"))


@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give services users of their own")
def test_under_the_policies_for_payments_and_for_health_records_it_is_the_same_story() -> None:
    told_whole(("--policy", "payments"), ("--policy", "hipaa"))
