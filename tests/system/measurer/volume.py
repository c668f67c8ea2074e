"""A projected volume, written as Kubernetes does it (pkg/volume/util/atomic_writer.go)."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path


class Volume:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = itertools.count()
        folder.mkdir()

    def write(self, **files: str) -> None:
        """A new state, written beside the last one, then swapped for it at once."""
        before = [each for each in self.folder.iterdir() if each.name.startswith("..2")]
        state = self.folder / f"..2026_11_24_09_30_00.{next(self._number)}"
        state.mkdir()
        for name, content in files.items():
            (state / name).touch(0o644)
            (state / name).write_text(content)
        self.lead(state.name)
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for each in before:
            shutil.rmtree(each)

    def lead(self, target: str) -> None:
        (self.folder / "..data_tmp").symlink_to(target)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
