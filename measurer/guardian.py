"""When Envoy's connections must end although nobody says so: the sidecar is dead, or silent for too long.

A pure object: what happened goes in with its time, what to do comes out. Invariants:
- With an Envoy to guard and a living sidecar, a silence longer than the dead-man time fires once, and stays fired
  until the sidecar guards again; a beat alone does not take it back.
- The sidecar's death fires whenever an Envoy is guarded, fired before or not, and is final.
- Without an Envoy nothing fires: there is nothing to end.
"""

from __future__ import annotations

from enum import StrEnum


class Duty(StrEnum):
    IDLE = "idle"
    """No Envoy yet."""
    GUARDING = "guarding"
    FIRED = "fired"
    OVER = "over"
    """The sidecar is dead."""


class Guardian:
    """Times are CLOCK_MONOTONIC seconds. deadman: how long a living sidecar may be silent."""

    def __init__(self, deadman: float) -> None:
        self.deadman = deadman
        self._heard = 0.0
        self._guards = False
        self.duty = Duty.IDLE

    def allow(self, deadman: float) -> None:
        """Another dead-man time from now on."""
        self.deadman = deadman

    def guard(self, now: float) -> None:
        """The sidecar named its Envoy, which also is a sign of life."""
        if self.duty is not Duty.OVER:
            self.duty, self._guards, self._heard = Duty.GUARDING, True, now

    def beat(self, now: float) -> None:
        """The sidecar gave a sign of life."""
        self._heard = max(self._heard, now)

    def died(self) -> bool:
        """The sidecar ended or hung up. True when Envoy has to be cut off."""
        self.duty = Duty.OVER
        return self._guards

    def tick(self, now: float) -> bool:
        """Time passed. True exactly when the silence has become too long."""
        if self.duty is not Duty.GUARDING or now - self._heard < self.deadman:
            return False
        self.duty = Duty.FIRED
        return True

    def patience(self, now: float) -> float | None:
        """Seconds until `tick` may fire; None when it cannot."""
        return max(0.0, self._heard + self.deadman - now) if self.duty is Duty.GUARDING else None
