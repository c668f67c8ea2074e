"""No alarm while nothing is wrong: one service for some seconds; `make test-alarms` has them all for a minute."""

from __future__ import annotations

import pytest

from tests.alarms.services import SERVICES
from tests.alarms.stage import alarms


@pytest.mark.timeout(120)
def test_a_forking_service_raises_no_alarm_under_load_reloads_rotated_logs_and_probes() -> None:
    (service,) = (each for each in SERVICES if each.name == "cpython")
    told, done = alarms(service, 5.0)
    assert told == []
    assert [name for name, count in done.items() if count == 0] == []
