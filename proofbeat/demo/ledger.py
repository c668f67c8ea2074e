"""What the load saw, and the judgement of an act by it: pure functions over records."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from proofbeat.demo.load import Record


@dataclass(frozen=True, slots=True)
class Closure:
    """From when nothing may be served: the moment closing was reported, until the moment opening began.

    A request that waits through the opening and is served after it is no leak: its connection was made, or its
    answer given, under the new identity.
    """

    closed: float
    opened: float

    def forbids(self, record: Record) -> bool:
        return record.served and self.closed <= record.began and record.ended < self.opened


@dataclass(slots=True)
class Ledger:
    """All records, in order of their end. closures: the periods in which a served request is a leak."""

    records: list[Record] = field(default_factory=list)
    closures: list[Closure] = field(default_factory=list)
    _served: int = 0

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.records.append(record)
            self._served += record.served

    def served(self) -> int:
        return self._served

    def refused(self) -> int:
        return len(self.records) - self.served()

    def recent(self, flow: int, most: int) -> list[bool]:
        """Served or not, for the latest requests of one flow, oldest first."""
        found: list[bool] = []
        for record in reversed(self.records[-most * 16 :]):
            if record.flow == flow:
                found.append(record.served)
                if len(found) == most:
                    break
        return found[::-1]

    def leaked(self) -> list[tuple[Record, Closure]]:
        """Requests that began inside a closure and were served, each with that closure."""
        return [(record, closure) for closure in self.closures for record in self.records if closure.forbids(record)]

    def refused_after(self, flows: Iterable[int], act: float) -> float | None:
        """Milliseconds from the act to the first refusal of the flow that was refused last; None if one never was."""
        wanted = set(flows)
        since = [record for record in self._since(act) if record.flow in wanted and record.ended >= act]
        first_refusals: dict[int, float] = {}
        for record in since:
            if not record.served:
                first_refusals.setdefault(record.flow, record.ended)
        if first_refusals.keys() != wanted:
            return None
        return (max(first_refusals.values()) - act) * 1000

    def last_served(self, flows: Iterable[int], act: float) -> float:
        """Milliseconds from the act to the end of the last request served so far; 0 when none was."""
        wanted = set(flows)
        ends = [each.ended for each in self._since(act) if each.flow in wanted and each.served]
        return max(0.0, (max(ends, default=act) - act) * 1000)

    def recovered_after(self, flows: Iterable[int], repair: float) -> float | None:
        """Milliseconds from the repair until each flow was served again; None if one never was."""
        firsts: list[float] = []
        for flow in flows:
            found = next(
                (r.ended for r in self._since(repair) if r.flow == flow and r.served and r.began >= repair), None
            )
            if found is None:
                return None
            firsts.append(found)
        return (max(firsts) - repair) * 1000 if firsts else None

    def refusals(self, flows: Iterable[int], since: float, until: float) -> list[Record]:
        """The requests of these flows that were refused in the period."""
        wanted = set(flows)
        inside = (each for each in self._since(since) if since <= each.began and each.ended <= until)
        return [each for each in inside if each.flow in wanted and not each.served]

    def _since(self, moment: float) -> list[Record]:
        """The records that may have ended at or after `moment`. They arrive within a second of their order."""
        return self.records[bisect_left(self.records, moment - 1.0, key=lambda record: record.ended) :]
