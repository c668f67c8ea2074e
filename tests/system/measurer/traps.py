"""Ways to change a measured file that a simple watcher does not see, each a real program.

Run as `python traps.py NAME FILE OTHER`: FILE is measured, OTHER lies beside it on the same file system and is not.
Afterwards FILE, or what is at its name, holds FORGED; but for what only its attributes differ in.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

FORGED = b"TWO"
"""As long as what is there, so that no size gives it away."""

_libc = ctypes.CDLL(None, use_errno=True)


def forged_mtime(file: Path, other: Path) -> None:
    """Write, then set both times back. The change time cannot be set by anybody."""
    before = file.stat()
    file.write_bytes(FORGED)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename_swap(file: Path, other: Path) -> None:
    other.write_bytes(FORGED)
    other.replace(file)


def exchange(file: Path, other: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE: at no moment is there no file."""
    other.write_bytes(FORGED)
    assert _libc.renameat2(-100, bytes(other), -100, bytes(file), 2) == 0


def symlinked_parent(file: Path, other: Path) -> None:
    """The folder gives way to a link to another one that has a file of the same name."""
    folder = other.with_name("elsewhere")
    folder.mkdir()
    (folder / file.name).write_bytes(FORGED)
    file.parent.rename(other.with_name("kept"))
    file.parent.symlink_to(folder)


def hard_link(file: Path, other: Path) -> None:
    """Written under a name that is not measured, and was there before the measurement began."""
    _in_place(other)


def new_hard_link(file: Path, other: Path) -> None:
    """The same under a name that comes later."""
    other.unlink(missing_ok=True)
    os.link(file, other)
    _in_place(other)


def anonymous(file: Path, other: Path) -> None:
    """A file that never had a name (O_TMPFILE) is given the measured one."""
    descriptor = os.open(other.parent, os.O_TMPFILE | os.O_WRONLY, 0o644)
    os.write(descriptor, FORGED)
    file.unlink()
    assert _libc.linkat(-100, b"/proc/self/fd/%d" % descriptor, -100, bytes(file), 0x400) == 0


def punched(file: Path, other: Path) -> None:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE writes zeros without a write."""
    with open(file, "r+b") as held:
        assert _libc.fallocate(held.fileno(), 3, ctypes.c_long(0), ctypes.c_long(len(FORGED))) == 0


def copied(file: Path, other: Path) -> None:
    """copy_file_range(2): the kernel writes."""
    other.write_bytes(FORGED)
    with open(other, "rb") as source, open(file, "r+b") as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), len(FORGED)) == len(FORGED)


def spliced(file: Path, other: Path) -> None:
    """splice(2) from a pipe."""
    read, write = os.pipe()
    os.write(write, FORGED)
    with open(file, "r+b") as target:
        assert os.splice(read, target.fileno(), len(FORGED)) == len(FORGED)


def truncated(file: Path, other: Path) -> None:
    """truncate(2): nothing is opened, nothing is written."""
    os.truncate(file, 0)


def io_uring(file: Path, other: Path) -> None:
    """A write that no system call of that name makes (io_uring(7)), and that no close follows for a while."""
    held = os.open(file, os.O_WRONLY)
    parameters = (ctypes.c_uint32 * 30)()
    ring = _libc.syscall(425, 1, parameters)
    assert ring >= 0, "io_uring_setup is refused here"
    _, tail, _, _, _, _, array = parameters[10:17]
    queue = mmap.mmap(ring, array + 4, offset=0)
    entries = mmap.mmap(ring, 64, offset=0x10000000)
    buffer = ctypes.create_string_buffer(FORGED)
    entries[0:8] = bytes((23, 0, 0, 0)) + held.to_bytes(4, "little")  # IORING_OP_WRITE
    entries[8:28] = bytes(8) + ctypes.addressof(buffer).to_bytes(8, "little") + len(FORGED).to_bytes(4, "little")
    queue[array : array + 4] = bytes(4)
    queue[tail : tail + 4] = (1).to_bytes(4, "little")
    assert _libc.syscall(426, ring, 1, 1, 1, None, 0) == 1  # IORING_ENTER_GETEVENTS
    _stay()


def mapped(file: Path, other: Path) -> None:
    """A store through a shared mapping, and the mapping stays."""
    with open(file, "r+b") as held, mmap.mmap(held.fileno(), 0) as page:
        page[:] = FORGED
        _stay()


def unmapped(file: Path, other: Path) -> None:
    """The mapping goes, and the descriptor stays: the kernel tells of its close, and of nothing before."""
    with open(file, "r+b") as held:
        with mmap.mmap(held.fileno(), 0) as page:
            page[:] = FORGED
        _stay()


def mapped_late(file: Path, other: Path) -> None:
    """The page is dirty before the look that comes first; the store that matters changes no time any more."""
    with open(file, "r+b") as held, mmap.mmap(held.fileno(), 0) as page:
        page[:] = b"two"
        _told("dirty")
        page[:] = FORGED
        _stay()


def mode(file: Path, other: Path) -> None:
    file.chmod(0o4755)


def owner(file: Path, other: Path) -> None:
    os.chown(file, 12345, 54321)


def capabilities(file: Path, other: Path) -> None:
    """CAP_NET_RAW, permitted and effective (linux/capability.h: VFS_CAP_REVISION_2)."""
    os.setxattr(file, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


def written_and_closed_by_a_thread(file: Path, other: Path) -> None:
    """Ends before anybody can look who it was."""
    thread = threading.Thread(target=_in_place, args=(file,))
    thread.start()
    thread.join()


def replaced_while_it_runs(file: Path, other: Path) -> None:
    """A program that is running is deleted, and another one put in its place."""
    shutil.copy("/bin/sleep", file)
    file.chmod(0o755)
    os.posix_spawn(file, [bytes(file), b"30"], os.environ)
    file.unlink()
    file.write_bytes(FORGED)


def _in_place(file: Path) -> None:
    with open(file, "r+b") as held:
        held.write(FORGED)


def _told(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def _stay() -> None:
    """Neither close nor unmap anything until somebody says so."""
    _told("done")


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    each.__name__: each
    for each in (
        forged_mtime, rename_swap, exchange, symlinked_parent, hard_link, new_hard_link, anonymous, punched, copied,
        spliced, truncated, io_uring, mapped, unmapped, mapped_late, mode, owner, capabilities,
        written_and_closed_by_a_thread, replaced_while_it_runs,
    )
}  # fmt: skip

if __name__ == "__main__":
    os.umask(0o022)
    TRAPS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    _stay()
