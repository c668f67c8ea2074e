"""One record of timestamps a round; everything derived from it is computed after the lease is served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RoundRecord:
    """CLOCK_BOOTTIME seconds at which each stage of one round was over; 0 for a stage it did not reach."""

    began: float
    full: bool = False
    nonce: float = 0.0
    measured: float = 0.0
    signed: float = 0.0
    answered: float = 0.0
    served: float = 0.0

    def stages(self) -> dict[str, float]:
        """Milliseconds spent in each stage reached, and in all of them."""
        found: dict[str, float] = {}
        before = self.began
        for name in ("nonce", "measured", "signed", "answered", "served"):
            at = getattr(self, name)
            if at:
                found[f"{name}_ms"] = round((at - before) * 1000, 3)
                before = at
        found["total_ms"] = round((before - self.began) * 1000, 3)
        return found
