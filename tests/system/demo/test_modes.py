"""The main job as a user runs it: real services, Envoys, kernel and traffic, judged by the traffic."""

from __future__ import annotations

import pytest

from tests.system.demo.stage import told_whole


@pytest.mark.timeout(240)
def test_two_demos_at_once_one_in_each_mode_tell_the_whole_story_and_nothing_leaks() -> None:
    told_whole(("--delivery", "sds"), ("--delivery", "xds"))
