"""What is wrong with documents of single namespaces: told in the log, each once while it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestation.wording import shown
from policies.model.faults import Fault
from telemetry.names import Event

_MOST_TOLD = 50
"""Lines at once: whoever writes a namespace's documents must not fill the log with them."""
_MOST_NAMED = 20


class Faults:
    """log: of the authority."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._told: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
        self.count = 0
        """How many stand."""

    def tell(self, faults: Mapping[Fault, Sequence[str]]) -> None:
        """All that stand now, each with the registrations that it keeps from an identity."""
        found = {(fault.sentence, tuple(names)): fault for fault, names in faults.items()}
        new = [each for each in found if each not in self._told]
        for each in new[:_MOST_TOLD]:
            fault, names = found[each], each[1]
            self._log.error(
                Event.POLICY_FAULT,
                document=fault.document,
                where=shown(fault.error.where),
                why=shown(fault.error.what),
                mend=shown(fault.error.mend),
                without_identity=[*names[:_MOST_NAMED], *(["..."] if len(names) > _MOST_NAMED else [])],
            )
        if len(new) > _MOST_TOLD:
            self._log.error(Event.POLICY_FAULT, why=f"{len(new) - _MOST_TOLD} faults more", mend=_MEND_MORE)
        self._told, self.count = frozenset(found), len(faults)


_MEND_MORE = "`proofbeat policy check` tells them all."
