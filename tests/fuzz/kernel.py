"""measurer/: records of the kernel, texts of /proc, which hold names that a workload chooses, and runtimes' words."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from attestation import cgroups
from attestation.destinations import TCP
from attestation.errors import InvalidInput
from measurer import connections, fanotify, mounts, netlink, sockdiag
from measurer import kernel as k
from measurer.files import fanotify as folders
from measurer.files import inotify
from measurer.memory import mappings
from measurer.processes import connector
from measurer.processes.binaries import interpreter_of
from measurer.processes.proc import is_over, parse_stat, parse_status, said_of_rights
from measurer.seccomp import arrivals
from tests.fuzz.target import Target

_METADATA_BYTES, _INOTIFY_BYTES, _NETLINK_BYTES = 24, 16, 16


def fanotify_records(data: bytes) -> None:
    """Never more events than records fit, and no name that the buffer does not hold."""
    found = list(folders.parse(data))
    assert len(found) <= len(data) // _METADATA_BYTES
    for _, _, key, name, file in found:
        assert key in data
        assert file in data
        assert name in data
        assert b"\0" not in name


def open_exec_records(data: bytes) -> None:
    """Never more events than records fit, and nothing in them that the buffer does not hold."""
    found = list(fanotify.events(data))
    assert len(found) <= len(data) // _METADATA_BYTES
    for event in found:
        assert event.records in data


def inotify_records(data: bytes) -> None:
    """Never more events than records fit, and no name that the buffer does not hold."""
    found = list(inotify.parse(data))
    assert len(found) <= len(data) // _INOTIFY_BYTES
    for _, _, name in found:
        assert name in data
        assert b"\0" not in name


def process_state(data: bytes) -> None:
    """What a container runtime says names a process and a descriptor, or is refused."""
    with suppress(InvalidInput):
        pid, position, _ = arrivals.state(data)
        assert pid > 0
        assert position >= 0


def connector_message(data: bytes) -> None:
    """One event a datagram at most."""
    assert len(list(connector.parse(data))) <= 1


def sock_diag_dump(data: bytes) -> None:
    """Every body lies in the buffer; one that is too short is no socket."""
    found = list(netlink.messages(data))
    assert len(found) <= len(data) // _NETLINK_BYTES
    for _, body in found:
        assert body in data
        connections.parse(body, TCP)
        parsed = sockdiag.parse(body)
        assert parsed is None or (len(parsed.identity), len(parsed.cookie), len(parsed.address)) == (48, 8, 16)


def process_stat(data: bytes) -> None:
    """Arbitrary text: our own error or a state. A command of any name: the fields behind it, not those in it."""
    with suppress(InvalidInput):
        parse_stat(data)
    command = data.replace(b"\0", b"")[:15]
    stat = parse_stat(b"7 (%s) S 3 1 9 " % command + b"0 " * 15 + b"55 " + b"0 " * 30)
    assert (stat.state, stat.parent, stat.session, stat.start_ticks) == ("S", 3, 9, 55)


_STATUS = b"Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nTracerPid:\t9\n"
_STATUS += b"CapPrm:\t0\nCapEff:\t00000000a80425fb\nCapBnd:\t0\nNoNewPrivs:\t0\n"
_ORDERED = b"State:\tS (sleeping)\nTracerPid:\t9\nUid:\t1\t2\t3\t4\nFDSize:\t64\nCapInh:\t0\nCpus_allowed:\t3\n"


def process_status(data: bytes) -> None:
    """Arbitrary text: our own error or rights. A command of any name adds no line of its own."""
    with suppress(InvalidInput):
        parse_status(data)
    # The kernel escapes line feeds and backslashes in the name, and nothing else (proc_task_name).
    command = data.replace(b"\0", b"").replace(b"\\", b"\\\\").replace(b"\n", b"\\n")[:30]
    assert parse_status(b"Name:\t%s\n" % command + _STATUS) == parse_status(b"Name:\tx\n" + _STATUS)
    named = b"Name:\t%s\n" % command + _ORDERED
    assert said_of_rights(named) == said_of_rights(b"Name:\tx\n" + _ORDERED)
    assert not is_over(named)


def cgroup_membership(data: bytes) -> None:
    """Arbitrary text: an answer. A group of any name adds no membership of its own."""
    cgroups.memberships(data)
    # No cgroup's name holds a line feed: the kernel refuses it.
    name = data.replace(b"\0", b"").replace(b"\n", b"")
    found = cgroups.memberships(b"4:memory:/pod/%s\n0::/pod\n" % name)
    assert found == {4: os.fsdecode(b"/pod/" + name), 0: "/pod"}


def mount_table(data: bytes) -> None:
    """Arbitrary text: an answer. A mount point of any name is read as that name, and hides no other."""
    mounts.parse(data)
    point = b"/" + data.replace(b"\0", b"")
    escaped = point
    for character in b"\\ \t\n":  # the backslash first (seq_path, fs/proc_namespace.c)
        escaped = escaped.replace(bytes([character]), b"\\%03o" % character)
    line = b"29 1 8:1 / %s rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    assert [each.point for each in mounts.parse(line % escaped + line % b"/last")] == [point, b"/last"]


def memory_maps(data: bytes) -> None:
    """Arbitrary text: an answer. A file of any name is one mapping, and hides no other."""
    list(mappings.parse(data))
    # The kernel escapes line feeds in it, and nothing else (show_map_vma).
    name = b"/" + data.replace(b"\0", b"").replace(b"\\", b"/")
    line = b"7f0000000000-7f0000001000 r-xp 00000000 fe:00 %d %s\n"
    found = list(mappings.parse(line % (7, name.replace(b"\n", b"\\012")) + line % (8, b"/last")))
    assert [(each.inode, each.name) for each in found] == [(7, name), (8, b"/last")]


def elf_interpreter(data: bytes) -> None:
    """A path of at most one page, whatever a file's headers promise."""
    descriptor = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        assert len(os.fsencode(interpreter_of(descriptor))) <= 4096
    finally:
        os.close(descriptor)


def _fanotify(mask: int, pid: int, name: bytes) -> bytes:
    body = b"fsid-of8" + struct.pack("=Ii", 8, 1) + b"handle-8" + name + b"\0"
    body += b"\0" * (-(len(body) + 4) % 4)
    record = struct.pack("=BBH", k.FAN_EVENT_INFO_TYPE_DFID_NAME, 0, len(body) + 4) + body
    return struct.pack("=IBBHQii", 24 + len(record), 3, 0, 24, mask, -1, pid) + record


def _open_exec(mask: int, descriptor: int) -> bytes:
    return struct.pack("=IBBHQii", 24, 3, 0, 24, mask, descriptor, 4242)


def _inotify(watch: int, mask: int, name: bytes) -> bytes:
    padded = name + b"\0" * (16 - len(name) % 16) if name else b""
    return struct.pack("=iIII", watch, mask, 0, len(padded)) + padded


def _connector(what: int, *numbers: int) -> bytes:
    body = struct.pack("=IIQ", what, 0, 99) + struct.pack(f"={len(numbers)}I", *numbers)
    head = struct.pack("=IIIIHH", k.CN_IDX_PROC, k.CN_VAL_PROC, 0, 0, len(body), 0)
    return struct.pack("=IHHII", 16 + len(head) + len(body), k.NLMSG_DONE, 0, 0, 0) + head + body


def _dump(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + b"\0" * (-len(body) % 4)


def _elf(bits: int) -> bytes:
    path = b"/lib64/ld-linux-x86-64.so.2\0"
    if bits == 64:
        head = (
            b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        )
        return head + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(path), len(path), 1) + path
    head = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 3, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return head + struct.pack("<IIIIIIII", 3, 84, 0, 0, len(path), len(path), 4, 1) + path


_FORK, _EXEC = k.PROC_EVENT_FORK, k.PROC_EVENT_EXEC
_SOCKET = struct.pack("=BBBB48sIIIII", 2, 1, 0, 0, bytes(range(48)), 0, 0, 0, 0, 77)

TARGETS = (
    Target(
        "fanotify",
        fanotify_records,
        lambda: (
            _fanotify(k.FAN_CREATE, 42, b"name") + _fanotify(k.FAN_MODIFY, 43, b"."),
            _fanotify(k.FAN_Q_OVERFLOW, 0, b""),
        ),
    ),
    Target(
        "open-exec",
        open_exec_records,
        lambda: (_open_exec(k.FAN_OPEN_EXEC, 9) * 2, _open_exec(k.FAN_Q_OVERFLOW, -1)),
    ),
    Target(
        "inotify",
        inotify_records,
        lambda: (
            _inotify(1, k.IN_CREATE, b"name") + _inotify(2, k.IN_DELETE_SELF, b""),
            _inotify(-1, k.IN_Q_OVERFLOW, b""),
        ),
    ),
    Target(
        "connector",
        connector_message,
        lambda: (_connector(_FORK, 1, 2, 3, 4), _connector(_EXEC, 5, 6), _connector(k.PROC_EVENT_NONE, 1)),
        most_bytes=256,
    ),
    Target(
        "sock-diag",
        sock_diag_dump,
        lambda: (
            _dump(20, _SOCKET) * 2 + _dump(k.NLMSG_DONE, bytes(4)),
            _dump(k.NLMSG_ERROR, struct.pack("=i", -1) + bytes(16)),
        ),
    ),
    Target(
        "proc-stat", process_stat, lambda: (b"7 (a b) S 1 1 1 " + b"0 " * 15 + b"55 0\n", b"a) Z 1"), (b")", b" R 1 ")
    ),
    Target(
        "proc-status",
        process_status,
        lambda: (b"Name:\tx\nState:\tS\n" + _STATUS + b"Seccomp:\t2\n",),
        (b"\rSeccomp:\t2", b"NoNewPrivs:\t1", b"\x0b", b"\x1c", b"\x85", b"\n", b"\\n"),
        most_bytes=1024,
    ),
    Target(
        "cgroup",
        cgroup_membership,
        lambda: (b"12:cpu,cpuacct:/a\n1:name=systemd:/a:b\n0::/kubepods/pod1\n", b"a", b"pod1/x:y"),
        (b"\n0::/", b"\r0::/", b"\x1c0::/", b"\x0b", "\u2028".encode(), "\u00b2".encode(), b"::"),
        most_bytes=512,
    ),
    Target(
        "process-state",
        process_state,
        lambda: (
            b'{"ociVersion":"1.0.2","fds":["seccompFd"],"pid":7,"state":{"id":"box","status":"creating","pid":7}}',
        ),
        (b'"pid":', b'"fds":[', b'"seccompFd"', b'"state":{', b"null", b"1e9", b"-1"),
        most_bytes=1024,
    ),
    Target(
        "maps",
        memory_maps,
        lambda: (
            b"55d0c0a28000-55d0c0a30000 r-xp 00028000 fe:00 247766   /usr/bin/sleep\n",
            b"7f0000001000-7f0000002000 rwxs 00000000 00:01 1025 /memfd:x (deleted)\n",
        ),
    ),
    Target(
        "mounts",
        mount_table,
        lambda: (
            b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n29 22 0:5 / /proc rw,noexec - proc proc rw\n",
            b"a\\040b",
        ),
        (b"\\040", b"\\134", b" - ", b"\r", b"\n", b",noexec", b"#"),
        most_bytes=1024,
    ),
    Target(
        "elf", elf_interpreter, lambda: (_elf(64), _elf(32), b"#!/bin/sh\n"), (b"\x7fELF\x02\x02", b"\xff" * 8), 512
    ),
)
