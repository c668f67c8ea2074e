"""What the kernel's bytes mean, and that no bytes whatever break the reading of them."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import cgroups
from attestation.errors import InvalidInput
from measurer import fanotify, kernel, mounts, netlink, sockdiag
from measurer.files import fanotify as folders
from measurer.files import inotify, mappings
from measurer.processes import connector
from measurer.processes.proc import (
    is_over,
    open_process,
    parse_stat,
    parse_status,
    rights_at,
    said_of_rights,
    tracer_in,
)

names = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and b"/" not in name)
STATUS = (
    b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nTracerPid:\t9\n"
    b"CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425ff\nNoNewPrivs:\t1\nSeccomp:\t2\n"
)


def stat_text(pid: int, command: bytes, state: str, parent: int, session: int, ticks: int) -> bytes:
    fields = [state, str(parent), "1", str(session), *["0"] * 15, str(ticks), *["0"] * 30]
    return b"%d (%s) " % (pid, command) + " ".join(fields).encode() + b"\n"


@given(
    st.integers(1, 1 << 22),
    st.binary(max_size=15).filter(lambda name: b"\0" not in name),
    st.sampled_from("RSDZTtX"),
    st.integers(0, 1 << 22),
    st.integers(0, 1 << 22),
    st.integers(0, 1 << 60),
)
def test_a_process_state_is_read_whatever_the_command_is_called(
    pid: int, command: bytes, state: str, parent: int, session: int, ticks: int
) -> None:
    stat = parse_stat(stat_text(pid, command, state, parent, session, ticks))
    assert (stat.state, stat.parent, stat.session, stat.start_ticks) == (state, parent, session, ticks)


@given(st.binary(max_size=300))
def test_what_is_no_process_state_is_refused_with_our_own_error(text: bytes) -> None:
    for parse in (parse_stat, parse_status, tracer_in):
        try:
            parse(text)
        except InvalidInput as error:
            assert error.where.startswith("/proc/PID/")


def test_rights_are_read_from_a_process_status() -> None:
    rights = parse_status(STATUS, ("pid:[1]",))
    assert rights.uids == (1, 2, 3, 4)
    assert rights.gids == (5, 6, 7, 8)
    assert (rights.tracer, rights.capabilities, rights.seccomp) == (9, "00000000a80425fb", 2)
    assert rights.no_new_privileges
    with pytest.raises(InvalidInput):
        parse_status(STATUS.replace(b"CapEff", b"CapXyz"))


AS_WRITTEN = (
    b"Name:\tx\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t7\nPPid:\t1\nTracerPid:\t9\nUid:\t1\t2\t3\t4\n"
    b"Gid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t\nVmRSS:\t 1 kB\nThreads:\t1\nCapInh:\t0\n"
    b"CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425ff\nCapAmb:\t0\n"
    b"NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\nCpus_allowed:\t3\nvoluntary_ctxt_switches:\t5\n"
)
"""In the order of the kernel (fs/proc/array.c)."""


def test_what_is_said_of_rights_says_all_of_them_and_nothing_that_changes_by_itself() -> None:
    said = said_of_rights(AS_WRITTEN)
    assert parse_status(said) == parse_status(AS_WRITTEN)
    busy = AS_WRITTEN.replace(b"VmRSS:\t 1 kB", b"VmRSS:\t 2 kB").replace(b"switches:\t5", b"switches:\t6")
    assert said_of_rights(busy) == said
    for field in (b"TracerPid", b"Uid", b"Gid", b"CapPrm", b"CapEff", b"CapBnd", b"NoNewPrivs", b"Seccomp"):
        assert said_of_rights(AS_WRITTEN.replace(b"\n%s:\t" % field, b"\n%s:\t8" % field)) != said


def test_of_a_status_in_any_other_order_all_is_said_of_rights() -> None:
    assert said_of_rights(STATUS) == STATUS


@pytest.mark.parametrize(("state", "over"), [(b"S", False), (b"t", False), (b"Z", True), (b"X", True)])
def test_a_status_says_whether_it_is_over_and_who_watches_whatever_the_command_is_called(
    state: bytes, over: bool
) -> None:
    status = AS_WRITTEN.replace(b"Name:\tx", b"Name:\t\rState:\tZ\rTracerPid:\t0").replace(b"\tS (", b"\t%s (" % state)
    assert is_over(status) is over
    assert tracer_in(status) == 9


def test_a_process_of_which_the_kernel_says_the_same_has_the_very_same_rights_and_a_zombie_has_none() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"it runs\n")
        process.stdin.flush()
        process.stdout.readline()
        folder = open_process(process.pid)
        try:
            first = rights_at(folder)
            again = rights_at(folder, first)
            other = rights_at(folder, replace(first, said=(b"", first.said[1], first.said[2])))
            process.stdin.close()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with pytest.raises(ProcessLookupError):
                rights_at(folder, first)
        finally:
            os.close(folder)
    assert again is first
    assert other is not first
    assert other == first


def test_what_a_process_can_take_by_itself_is_counted_as_had() -> None:
    permitted = STATUS.replace(b"CapEff:\t00000000a80425fb", b"CapEff:\t0000000000000000")
    assert parse_status(permitted).attainable == 0xA80425FB
    root = permitted.replace(b"Uid:\t1\t", b"Uid:\t0\t")
    assert parse_status(root).attainable == 0xA80425FB
    assert parse_status(root.replace(b"NoNewPrivs:\t1", b"NoNewPrivs:\t0")).attainable == 0xA80425FF


def fanotify_event(mask: int, pid: int, fsid: bytes, handle: bytes, name: bytes) -> bytes:
    body = fsid + struct.pack("=Ii", len(handle), 1) + handle + name + b"\0"
    body += b"\0" * (-(len(body) + 4) % 4)
    record = struct.pack("=BBH", kernel.FAN_EVENT_INFO_TYPE_DFID_NAME, 0, len(body) + 4) + body
    return struct.pack("=IBBHQii", 24 + len(record), 3, 0, 24, mask, -1, pid) + record


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1 << 31),
            st.integers(0, 1 << 22),
            st.binary(min_size=8, max_size=8),
            st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=16).map(b"".join),
            names,
        ),
        max_size=8,
    )
)
def test_every_fanotify_event_of_a_buffer_is_read(events: list[tuple[int, int, bytes, bytes, bytes]]) -> None:
    buffer = b"".join(fanotify_event(*event) for event in events)
    wanted = [
        (mask, pid, fsid + struct.pack("=Ii", len(handle), 1) + handle, name, b"")
        for mask, pid, fsid, handle, name in events
    ]
    assert list(folders.parse(buffer)) == wanted


@given(st.lists(st.tuples(st.integers(-1, 1 << 20), st.integers(0, 1 << 31), names), max_size=8))
def test_every_inotify_event_of_a_buffer_is_read(events: list[tuple[int, int, bytes]]) -> None:
    buffer = b""
    for watch, mask, name in events:
        padded = name + b"\0" * (16 - len(name) % 16)
        buffer += struct.pack("=iIII", watch, mask, 0, len(padded)) + padded
    assert list(inotify.parse(buffer)) == events


@given(st.lists(st.tuples(st.integers(0, 60000), st.binary(max_size=80)), max_size=8))
def test_every_netlink_message_of_a_buffer_is_read(wanted: list[tuple[int, bytes]]) -> None:
    buffer = b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + b"\0" * (-len(body) % 4) for kind, body in wanted
    )
    assert list(netlink.messages(buffer)) == wanted


@given(st.binary(max_size=400))
def test_no_bytes_break_a_parser(buffer: bytes) -> None:
    for parse in (folders.parse, inotify.parse, fanotify.events, netlink.messages, connector.parse):
        list(parse(buffer))
    sockdiag.parse(buffer)
    mounts.parse(buffer)


def connector_event(what: int, *numbers: int) -> bytes:
    event = struct.pack("=IIQ", what, 0, 0) + struct.pack("=IIII", *numbers, *[0] * (4 - len(numbers)))
    return struct.pack("=IHHII", 0, 0, 0, 0, 0) + struct.pack("=IIIIHH", 1, 1, 0, 0, len(event), 0) + event


def test_process_events_name_processes_and_threads_apart() -> None:
    (fork,) = connector.parse(connector_event(kernel.PROC_EVENT_FORK, 11, 10, 21, 20))
    assert (fork.pid, fork.thread, fork.other, fork.other_thread) == (10, 11, 20, 21)
    (traced,) = connector.parse(connector_event(kernel.PROC_EVENT_PTRACE, 11, 10, 21, 20))
    assert (traced.pid, traced.other) == (10, 20)
    (ended,) = connector.parse(connector_event(kernel.PROC_EVENT_EXIT, 11, 10))
    assert (ended.pid, ended.thread) == (10, 11)
    (refused,) = connector.parse(connector_event(kernel.PROC_EVENT_NONE, 1))
    assert (refused.what, refused.pid) == (kernel.PROC_EVENT_NONE, 1)


def test_a_datagram_of_another_connector_is_no_process_event() -> None:
    datagram = connector_event(kernel.PROC_EVENT_EXEC, 11, 10)
    assert list(connector.parse(datagram[:16] + struct.pack("=II", 2, 1) + datagram[24:])) == []


def test_a_socket_is_read_from_its_diagnosis() -> None:
    identity = (443).to_bytes(2, "big") + bytes(38) + b"cookie!!"
    body = struct.pack("=BBBB48sIIIII", 2, 1, 0, 0, identity, 0, 0, 0, 0, 77)
    found = sockdiag.parse(body)
    assert found is not None
    assert (found.family, found.state, found.port, found.cookie, found.inode) == (2, 1, b"\x01\xbb", b"cookie!!", 77)
    assert sockdiag.parse(body[:-1]) is None


def test_programs_can_lie_on_every_mount_but_those_of_the_kernel_and_noexec() -> None:
    text = (
        b"21 1 0:19 / / rw,relatime - ext4 /dev/vda rw\n"
        b"22 21 0:20 / /proc rw - proc proc rw\n"
        b"23 21 0:21 / /data\\040here rw,nosuid shared:1 - tmpfs tmpfs rw\n"
        b"24 21 0:22 / /quiet rw,noexec - tmpfs tmpfs rw\n"
    )
    assert [each.point for each in mounts.parse(text) if each.executable] == [b"/", b"/data here"]


OVERLAY = mounts.Mount(7, b"0:40", b"/", b"/", b"overlay", True)


@pytest.mark.parametrize(
    ("mount", "ours", "owned"),
    [
        (OVERLAY, [], True),
        (OVERLAY, [replace(OVERLAY, number=9, point=b"/var/lib/merged")], False),
        (replace(OVERLAY, root=b"/srv"), [], False),
        (replace(OVERLAY, kind=b"ext4"), [], False),
        (replace(OVERLAY, kind=b"tmpfs"), [], False),
    ],
)
def test_only_an_overlay_that_nobody_else_is_known_to_see_is_marked_as_a_whole(
    mount: mounts.Mount, ours: list[mounts.Mount], owned: bool
) -> None:
    assert mounts.own(mount, ours) is owned


def test_cgroup_memberships_are_read_by_hierarchy() -> None:
    assert cgroups.memberships(b"9:name=systemd:/a:b\n0::/c\nbroken\n") == {9: "/a:b", 0: "/c"}


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_cgroup_whose_name_looks_like_a_line_gives_no_other_membership(end: str) -> None:
    assert cgroups.memberships(f"0::/pod/{end}0::/elsewhere\n".encode()) == {0: f"/pod/{end}0::/elsewhere"}


def test_a_mount_point_whose_name_looks_like_a_line_is_still_marked() -> None:
    line = b"29 1 8:1 / /srv/\rx rw - ext4 /dev/sda1 rw\n"
    assert [each.point for each in mounts.parse(line)] == [b"/srv/\rx"]


def test_a_command_whose_name_looks_like_a_line_grants_itself_nothing() -> None:
    named = STATUS.replace(b"Name:\tx", b"Name:\t\rSeccomp:\t2").replace(b"\nSeccomp:\t2\n", b"\n")
    assert parse_status(named).seccomp == 0


def test_only_shared_writable_mappings_of_files_can_change_them() -> None:
    text = (
        b"7f00-7f10 rw-s 00000000 fe:00 77                         /srv/app/a b\n"
        b"7f10-7f20 -w-s 00000000 fe:00 78                         /srv/app/line\\012feed (deleted)\n"
        b"7f20-7f30 rw-p 00000000 fe:00 79                         /srv/app/private\n"
        b"7f30-7f40 r--s 00000000 fe:00 80                         /srv/app/read\n"
        b"7f40-7f50 rw-s 00000000 00:00 0 \n"
        b"7f50-7f60 rw-s 00000000 00:0e 81                         anon_inode:[io_uring]\n"
    )
    assert list(mappings.parse(text)) == [(77, b"/srv/app/a b"), (78, b"/srv/app/line\nfeed (deleted)")]


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_the_kernel_is_asked_for_those_mappings_that_its_text_tells(tmp_path: Path, count: int) -> None:
    folder = open_process(os.getpid())
    with ExitStack() as held:
        held.callback(os.close, folder)
        private = held.enter_context((tmp_path / "private").open("wb+"))
        private.truncate(1)
        held.enter_context(mmap.mmap(private.fileno(), 1, flags=mmap.MAP_PRIVATE))
        for number in range(count):
            file = held.enter_context((tmp_path / f"line\nfeed {number}").open("wb+"))
            file.truncate(1)
            held.enter_context(mmap.mmap(file.fileno(), 1))
        found = mappings.writable(folder)
    ours = sorted(path for _, path in found if path.startswith(os.fsencode(tmp_path)))
    assert ours == sorted(os.fsencode(tmp_path / f"line\nfeed {number}") for number in range(count))
