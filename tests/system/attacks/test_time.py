"""A machine that is put back to an earlier moment, as far as it can be done to this one."""

from __future__ import annotations

from tests.system.attacks.stage import scene


def test_time_that_passed_for_the_authority_alone_closes_until_attested_again() -> None:
    """What a restored machine sees: its own clocks went on, everybody else's are ahead."""
    with scene(interval="2s") as playing:
        playing.until_open()
        proxy = playing.proxy()
        before = len(playing.logs)
        playing.hall.clock.ahead += 10.0
        proxy.until_poisoned()
        playing.until("phase", lambda each: each["phase"] == "stale", after=before)
        proxy.until_identity()
        playing.until_open(after=before)


def test_a_machine_whose_clocks_began_elsewhere_is_attested_like_any_other() -> None:
    """A time namespace (time_namespaces(7)): CLOCK_BOOTTIME and CLOCK_MONOTONIC are not the host's."""
    with scene(sidecar=("unshare", "--time", "--boottime", "100000", "--monotonic", "5000")) as playing:
        playing.until_open()
        playing.proxy()
