"""The very file that is mapped, whatever lies under its name by now."""

from __future__ import annotations

import os
from collections.abc import Generator

from attestation.digests import Digest
from measurer import kernel
from measurer.memory.mappings import Mapping
from measurer.processes.binaries import Binaries, stamp_of
from measurer.processes.held import Held


class Mapped:
    """root: the workload's, where a file is looked up whose mapping we may not follow."""

    def __init__(self, binaries: Binaries, root: int) -> None:
        self._binaries, self._root = binaries, root

    def path(self, mapping: Mapping) -> str:
        """As the workload knows it."""
        return self._binaries.path_of(os.fsdecode(mapping.path))

    def digest(self, process: Held, mapping: Mapping) -> Generator[None, None, tuple[Digest, bool]]:
        """Of its content, empty where it cannot be read; and whether no name leads to it."""
        status = process.read(lambda folder: _status(folder, mapping))
        if status is not None:
            known = self._binaries.known(stamp_of(status))
            if known:
                return known, status.st_nlink == 0
        descriptor = self.open(process, mapping)
        if descriptor < 0:
            return "", mapping.name != mapping.path
        try:
            yield from self._binaries.read_slowly(descriptor)
            binary = self._binaries.of_open(descriptor, os.fsdecode(mapping.path))
        except OSError:  # it is no regular file
            return "", False
        else:
            return binary.digest, binary.deleted
        finally:
            os.close(descriptor)

    def open(self, process: Held, mapping: Mapping) -> int:
        """A descriptor of it; -1 where it cannot be had."""
        descriptor = process.read(lambda folder: _followed(folder, mapping))
        if descriptor is None:
            descriptor = process.read(lambda folder: _executed(folder, mapping))
        return self._by_name(mapping) if descriptor is None else descriptor

    def _by_name(self, mapping: Mapping) -> int:
        """What lies under its name, if that is it."""
        try:
            path = os.fsencode(self._binaries.path_of(os.fsdecode(mapping.path)))
            descriptor = kernel.open_below(self._root, path, os.O_RDONLY | os.O_NONBLOCK)
        except (OSError, ValueError):
            return -1
        if _is(os.fstat(descriptor), mapping):
            return descriptor
        os.close(descriptor)
        return -1


def _status(folder: int, mapping: Mapping) -> os.stat_result:
    return os.stat(mapping.link, dir_fd=folder)


def _followed(folder: int, mapping: Mapping) -> int:
    """Takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (proc(5))."""
    return os.open(mapping.link, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def _executed(folder: int, mapping: Mapping) -> int | None:
    """What the process runs, if that is it: found without a privilege, and where it was deleted."""
    descriptor = os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    if _is(os.fstat(descriptor), mapping):
        return descriptor
    os.close(descriptor)
    return None


def _is(status: os.stat_result, mapping: Mapping) -> bool:
    """The same inode, on the same device; a stacked file system tells another device of its mappings (overlay, btrfs),
    of which both have the major number 0."""
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    return status.st_ino == mapping.inode and (device == mapping.device or device[0] == 0 or mapping.device[0] == 0)
