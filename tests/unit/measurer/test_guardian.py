"""When the guardian fires, over every order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from measurer.guardian import Duty, Guardian

DEADMAN = 5.0
events = st.lists(
    st.tuples(
        st.sampled_from(["guard", "beat", "tick", "died"]), st.integers(0, 80).map(lambda quarters: quarters / 4)
    ),
    max_size=40,
)


def test_silence_fires_exactly_once() -> None:
    guardian = Guardian(DEADMAN)
    guardian.guard(100.0)
    assert not guardian.tick(104.9)
    assert guardian.tick(105.0)
    assert not guardian.tick(200.0)
    assert guardian.duty is Duty.FIRED


def test_a_beat_after_the_fire_does_not_take_it_back_but_a_new_guard_does() -> None:
    guardian = Guardian(DEADMAN)
    guardian.guard(0.0)
    assert guardian.tick(6.0)
    guardian.beat(6.125)
    assert guardian.patience(6.125) is None
    guardian.guard(6.25)
    assert guardian.duty is Duty.GUARDING
    assert guardian.patience(6.25) == DEADMAN


def test_without_an_envoy_nothing_fires() -> None:
    guardian = Guardian(DEADMAN)
    assert not guardian.tick(1000.0)
    assert not guardian.died()


def test_death_fires_even_after_silence_has() -> None:
    guardian = Guardian(DEADMAN)
    guardian.guard(0.0)
    assert guardian.tick(9.0)
    assert guardian.died()
    guardian.guard(9.1)
    assert guardian.duty is Duty.OVER


@given(events)
def test_it_fires_if_and_only_if_a_guarded_envoys_sidecar_was_silent_too_long(
    story: list[tuple[str, float]],
) -> None:
    guardian, now = Guardian(DEADMAN), 0.0
    last_sign: float | None = None
    """When the sidecar was heard last; None while nothing can fire."""
    over, guards = False, False
    for what, passed in story:
        now += passed
        if what == "guard":
            guardian.guard(now)
            guards = guards or not over
            last_sign = None if over else now
        elif what == "beat":
            guardian.beat(now)
            last_sign = now if last_sign is not None else None
        elif what == "died":
            assert guardian.died() == guards
            over, last_sign = True, None
        else:
            due = last_sign is not None and now - last_sign >= DEADMAN
            assert guardian.tick(now) == due
            last_sign = None if due else last_sign
        patience = guardian.patience(now)
        assert (patience is None) == (last_sign is None)
        assert patience is None or 0.0 <= patience <= DEADMAN
