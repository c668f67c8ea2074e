"""A file system with one file, which can be found and opened, and is never given when it is read (linux/fuse.h)."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_LOOKUP, _GETATTR, _OPEN, _READ, _INIT, _OPENDIR = 1, 3, 14, 15, 26, 27
_HEAD, _ANSWER = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
_ENOSYS = 38
_FORCE, _DETACH = 1, 2
_ROOT, _FILE = 1, 2
_SIZE = 100


class Silent:
    """Mounted while it is entered; then whoever waits is told that nobody is there. asked: somebody reads the file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "file"
        self.asked = threading.Event()

    def __enter__(self) -> Silent:
        self._folder.mkdir()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40755,user_id=0,group_id=0,allow_other".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"silent", os.fsencode(self._folder), b"fuse.silent", 0, options) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ctypes.CDLL(None).umount2(os.fsencode(self._folder), _FORCE | _DETACH)
        with suppress(OSError):
            os.close(self._device)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._answer(os.read(self._device, 1 << 17))

    def _answer(self, request: bytes) -> None:
        _, what, unique, node, *_ = _HEAD.unpack_from(request)
        if what == _READ:
            self.asked.set()
            return
        body = {
            _INIT: struct.pack("=IIIIHHIIHHI7I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0, *[0] * 7),
            _LOOKUP: struct.pack("=QQQQII", _FILE, 0, 1, 1, 0, 0) + _attributes(_FILE),
            _GETATTR: struct.pack("=QII", 1, 0, 0) + _attributes(node),
            _OPEN: struct.pack("=QII", 1, 0, 0),
            _OPENDIR: struct.pack("=QII", 1, 0, 0),
        }.get(what)
        error = 0 if body is not None else -_ENOSYS
        os.write(self._device, _ANSWER.pack(_ANSWER.size + len(body or b""), error, unique) + (body or b""))


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == _ROOT else 0o100644
    return struct.pack("=6Q10I", node, _SIZE, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
