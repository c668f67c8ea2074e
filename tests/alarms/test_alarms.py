"""No alarm in a minute of each service's life: `make test-alarms`, which installs and builds what is run here."""

from __future__ import annotations

import os

import pytest

from tests.alarms.services import SERVICES, Service
from tests.alarms.stage import alarms

SECONDS = float(os.environ.get("SECONDS", "60"))


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_a_service_under_a_learned_policy_raises_no_alarm_whatever_belongs_to_its_days(
    service: Service,
) -> None:
    told, done = alarms(service, SECONDS)
    assert told == []
    assert [name for name, count in done.items() if count == 0] == []
