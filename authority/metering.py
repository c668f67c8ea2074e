"""What the authority counts, and how a round becomes a trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attestation.errors import Refused, Unavailable
from authority.breakglass import BreakGlasses
from authority.faults import Faults
from authority.holding import Holding
from authority.sessions import Sessions
from authority.store.records import Accepted
from authority.verifier.cache import Appraisals
from authority.verifier.verify import Verified
from telemetry import metrics, recorder
from telemetry.recorder import AppraisalRecord, Recorder


class Metering:
    """Counting waits for the event loop's next turn, when the answer's bytes are written."""

    def __init__(
        self, made: Recorder, sessions: Sessions, glasses: BreakGlasses, holding: Holding, faults: Faults
    ) -> None:
        self._recorder = made
        made.watch(metrics.BREAK_GLASS, lambda: (((), float(glasses.active)),))
        made.watch(metrics.HELD, lambda: (((), float(holding.active)),))
        made.watch(metrics.POLICY_FAULTS, lambda: (((), float(faults.count)),))
        made.watch(metrics.SESSIONS, lambda: (((), float(len(sessions))),))

    def cached(self, appraisals: Appraisals) -> None:
        """From now on tell how often this cache helped."""
        self._recorder.watch(
            metrics.APPRAISAL_CACHE,
            lambda: ((("hit",), float(appraisals.hits)), (("miss",), float(appraisals.misses))),
        )

    @contextmanager
    def round(self) -> Iterator[AppraisalRecord]:
        """A record to fill; a round that is refused is counted as such."""
        try:
            yield AppraisalRecord(now())
        except Refused:
            self._recorder.count(metrics.ROUNDS, "refused")
            raise
        except Unavailable:
            self._recorder.count(metrics.ROUNDS, "unavailable")
            raise

    def answered(self, record: AppraisalRecord, verified: Verified, accepted: Accepted, *, issued: bool) -> None:
        """issued: with a certificate."""
        record.issued, record.value = now(), verified.nonce
        new = issued and not accepted.repeated
        asyncio.get_running_loop().call_soon(self._count, record, verified, accepted, new)

    def _count(self, record: AppraisalRecord, verified: Verified, accepted: Accepted, issued: bool) -> None:
        tier = accepted.tier.label
        self._recorder.count(metrics.ROUNDS, tier)
        self._recorder.count(metrics.APPRAISALS, tier)
        if issued:
            self._recorder.count(metrics.ISSUED)
        self._recorder.observe_stages(record.began, record.marks())
        self._recorder.traced(
            lambda: recorder.of_appraisal(
                record,
                {
                    "instance": str(verified.claims.instance),
                    "sequence": verified.claims.sequence,
                    "generation": verified.claims.generation,
                    "full": verified.full,
                    "tier": tier,
                },
            )
        )


def now() -> float:
    """CLOCK_BOOTTIME seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
