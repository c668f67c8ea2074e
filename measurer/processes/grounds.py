"""Where an executed file lies: is it a place to which nothing came that was built, by what that place is?

Not by its name: `/tmp` may be a folder like any other, and any folder may be open to everybody, or in memory.
"""

from __future__ import annotations

import os
import stat

from measurer import kernel

_KINDS = {0x01021994: "tmpfs", 0x858458F6: "ramfs", 0x65735546: "fuse"}
"""linux/magic.h: what is in memory, and what a program makes up."""
_MOST_KNOWN = 256


class Grounds:
    """root: the workload's root folder. Its own file system counts as built, whatever it is."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._home = os.fstat(root).st_dev
        self._kinds: dict[int, str] = {}

    def forget(self) -> None:
        """File systems may be others by now."""
        self._kinds.clear()

    def of(self, descriptor: int, device: int) -> str:
        """The kind of the file system that an open file is on, where that is none that is built; else empty."""
        if device == self._home:
            return ""
        known = self._kinds.get(device)
        if known is None:
            if len(self._kinds) >= _MOST_KNOWN:
                self._kinds.clear()
            known = self._kinds[device] = _KINDS.get(kernel.file_system(descriptor), "")
        return known

    def open_to_everybody(self, path: str) -> str:
        """The folder on the way to this path, if there is one, into which everybody may put files; else empty.

        path: as the workload sees it.
        """
        folder = path
        while folder not in ("/", ""):
            folder = folder.rpartition("/")[0]
            try:
                mode = os.stat(folder[1:] or ".", dir_fd=self._root, follow_symlinks=False).st_mode
            except OSError:
                continue
            if stat.S_ISDIR(mode) and mode & stat.S_IWOTH:
                return folder or "/"
        return ""
