"""What a round freezes of the latest measurements."""

from __future__ import annotations

import asyncio

import pytest

from attestation.channel import Measure
from attestation.errors import Unavailable
from attestation.layers import Layer, Method
from attestation.observation import Observation
from attestation.tally import Offence, Tally
from sidecar.metering import call_rates, calls_outside
from sidecar.observations import Observations


def observed(began: float, *, full: float = 0.0, digest: str = "a" * 64) -> Observation:
    return Observation(Layer.FILES, digest, Method.EVENT, began, full, 3)


def test_a_round_waits_for_a_measurement_that_began_after_it_did() -> None:
    async def story() -> None:
        orders: list[Measure] = []
        kept = Observations(orders.append)
        kept.observed(observed(1.0), b"old")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(kept.measured((Layer.FILES,), 5.0, full=False, timeout=5.0))
            await asyncio.sleep(0)
            assert orders == [Measure((Layer.FILES,), 5.0, False)]
            kept.observed(observed(4.9), None)
            await asyncio.sleep(0)
            assert not waiting.done()
            kept.observed(observed(5.1), None)
        assert waiting.result().bodies == {"a" * 64: b"old"}

    asyncio.run(story())


def test_an_incremental_measurement_does_not_pass_for_a_full_one() -> None:
    async def story() -> None:
        kept = Observations(lambda _: None)
        kept.observed(observed(9.0, full=1.0), b"body")
        with pytest.raises(Unavailable, match="no measurement of files"):
            await kept.measured((Layer.FILES,), 5.0, full=True, timeout=0.02)

    asyncio.run(story())


def test_a_body_that_is_owed_and_does_not_come_is_refused() -> None:
    kept = Observations(lambda _: None)
    with pytest.raises(Unavailable):
        kept.observed(observed(1.0), None)


def test_ages_are_rounded_up_never_down() -> None:
    kept = Observations(lambda _: None)
    kept.observed(observed(10.0, full=8.0), b"body")
    (claim,) = kept.frozen((Layer.FILES,)).claims(10.0001)
    assert (claim.age_ms, claim.full_age_ms) == (1, 2001)


def test_what_is_told_of_calls_beside_their_layer_is_a_rounds_as_it_was_measured_and_a_metric() -> None:
    kept, tally = Observations(lambda _: None), Tally((3,), 11, 14, 0, (Offence("chroot", 7, "/x", 5),), 2)
    kept.observed(observed(1.0), b"files")
    assert (kept.tally(), kept.frozen((Layer.FILES,)).calls) == (None, None)
    assert list(call_rates(kept)) == list(calls_outside(kept)) == []
    kept.observed(Observation(Layer.SYSCALLS, "b" * 64, Method.FULL, 1.0, 1.0, 1, tally=tally), b"calls")
    assert kept.frozen((Layer.FILES, Layer.SYSCALLS)).calls == tally
    assert kept.frozen((Layer.FILES,)).calls is None, "an authority that reads no such layer is told nothing of it"
    assert list(call_rates(kept)) == [(("average",), 1024.0), (("busiest",), 8192.0), (("told",), 0.0)]
    assert list(calls_outside(kept)) == [((), 3.0)]
