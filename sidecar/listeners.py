"""The listeners that whoever started the workload left to us: kept, and handed to each measurer that we have."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from attestation.channel import Listener


class Listeners:
    """descriptors: ours from now on. order: hands one to the measurer, beside a word; it stays ours."""

    def __init__(self, descriptors: Sequence[int], order: Callable[[Listener, int], None]) -> None:
        self._descriptors, self._order = tuple(descriptors), order
        for each in self._descriptors:
            os.set_inheritable(each, False)  # what we start is not to answer there

    def hand_over(self) -> None:
        """To a measurer that has just been told whom to measure."""
        for each in self._descriptors:
            self._order(Listener(), each)

    def close(self) -> None:
        """Once no measurer is left: whoever waits gets ENOSYS."""
        for each in self._descriptors:
            os.close(each)
