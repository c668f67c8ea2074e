"""`volatile` patterns: which paths are left out of the measurement. The policy judges by the same expressions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from attestation.errors import InvalidConfiguration
from attestation.patterns import compiled

_ANYTHING = "/\x01/\x01"
"""What no pattern names in particular: a folder under which even this matches is volatile as a whole."""


class Volatile:
    """Globs over whole paths, in bytes. Raises InvalidConfiguration for patterns that do not compile."""

    def __init__(self, patterns: Sequence[str]) -> None:
        try:
            self._expression = compiled(tuple(patterns))
        except re.error as error:
            raise InvalidConfiguration(f"no valid glob ({error})", where="workload.files.volatile") from error

    def __bool__(self) -> bool:
        return self._expression is not None

    def covers(self, path: bytes) -> bool:
        """Is a file of this path volatile?"""
        return self._expression is not None and self._expression.fullmatch(os.fsdecode(path)) is not None

    def covers_all_below(self, path: bytes) -> bool:
        """Is all that could lie in a folder of this path volatile, and the folder too? Then it is not even entered."""
        return self.covers(path) and self.covers(path + _ANYTHING.encode())
