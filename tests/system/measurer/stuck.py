"""A file system with one file that is never read, or not even opened: run by a workload, in its own mount namespace.

Usage, in the workload: `exec` this source, then `serve(FOLDER, NEVER)`, a request that is never answered. fuse(4), as
far as that takes.
"""

import ctypes
import os
import struct
import threading

LOOKUP, GETATTR, OPEN, READ, INIT, OPENDIR, ENOSYS = 1, 3, 14, 15, 26, 27, 38
MNT_FORCE = 1
HEADER, ANSWER = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
ROOT, FILE, LONG = 1, 2, 3600
SIZE = 4096


def attributes(node: int) -> bytes:
    mode, size = (0o40755, 0) if node == ROOT else (0o100755, SIZE)
    return struct.pack("=QQQQQQIIIIIIIIII", node, size, 8, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, SIZE, 0)


def answer(kind: int, node: int) -> bytes | None:
    """None for what there is not."""
    if kind == INIT:
        return struct.pack("=IIIIHHIIHHIIHH20x", 7, 31, 65536, 0, 12, 10, 65536, 1, 1, 0, 0, 0, 0, 0)
    if kind == LOOKUP:
        return struct.pack("=QQQQII", FILE, 0, LONG, LONG, 0, 0) + attributes(FILE)
    if kind == GETATTR:
        return struct.pack("=QII", LONG, 0, 0) + attributes(node)
    if kind in (OPEN, OPENDIR):
        return struct.pack("=QII", 1, 0, 0)
    return None


def serve(folder: str, never: int) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"stuck", folder.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount")

    def listen() -> None:
        while True:
            request = os.read(device, 1 << 17)
            _, kind, unique, node, *_ = HEADER.unpack_from(request)
            body = answer(kind, node)
            if kind == never:
                continue
            if body is not None:
                os.write(device, ANSWER.pack(ANSWER.size + len(body), 0, unique) + body)
            elif unique:
                os.write(device, ANSWER.pack(ANSWER.size, -ENOSYS, unique))

    threading.Thread(target=listen, daemon=True).start()


def end(folder: str) -> None:
    """Whoever waits for an answer gets an error."""
    ctypes.CDLL(None).umount2(folder.encode(), MNT_FORCE)
