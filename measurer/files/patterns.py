"""What the sidecar says is volatile: paths left out of the measurement. The policy judges by the same expressions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from attestation.errors import InvalidConfiguration
from attestation.patterns import Overlap


class Volatile:
    """Globs over whole paths, in bytes, as Scope has them. Raises InvalidConfiguration for what does not compile."""

    def __init__(self, reasons: Sequence[Sequence[Sequence[str]]]) -> None:
        try:
            self._reasons = [Overlap(lists) for lists in reasons]
        except re.error as error:
            raise InvalidConfiguration(f"no valid glob ({error})", where="workload.files.volatile") from error

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def covers(self, path: bytes) -> bool:
        """Is a file of this path volatile?"""
        return any(each.covers(os.fsdecode(path)) for each in self._reasons)

    def covers_all_below(self, path: bytes) -> bool:
        """Is all that could lie in a folder of this path volatile? Then it is not even entered."""
        return any(each.covers_all_below(os.fsdecode(path)) for each in self._reasons)
