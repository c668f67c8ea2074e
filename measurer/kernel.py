"""Numbers of the kernel's interface that Python has no names for, and the calls libc has no wrapper for in Python.

Each group names its header. Every call raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import struct
import sys

# linux/fanotify.h
FAN_MODIFY = 0x00000002
FAN_ATTRIB = 0x00000004
FAN_CLOSE_WRITE = 0x00000008
FAN_MOVED_FROM = 0x00000040
FAN_MOVED_TO = 0x00000080
FAN_CREATE = 0x00000100
FAN_DELETE = 0x00000200
FAN_DELETE_SELF = 0x00000400
FAN_MOVE_SELF = 0x00000800
FAN_OPEN = 0x00000020
FAN_OPEN_EXEC = 0x00001000
FAN_Q_OVERFLOW = 0x00004000
FAN_OPEN_EXEC_PERM = 0x00040000
FAN_EVENT_ON_CHILD = 0x08000000
FAN_ONDIR = 0x40000000
FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_CLASS_CONTENT = 0x4
FAN_UNLIMITED_QUEUE = 0x10
FAN_UNLIMITED_MARKS = 0x20
FAN_REPORT_TID = 0x100
FAN_REPORT_FID = 0x200
FAN_REPORT_DFID_NAME = 0xC00
FAN_MARK_ADD = 0x1
FAN_MARK_DONT_FOLLOW = 0x4
FAN_MARK_IGNORED_MASK = 0x20
FAN_MARK_IGNORED_SURV_MODIFY = 0x40
FAN_MARK_MOUNT = 0x10
FAN_MARK_FILESYSTEM = 0x100
FAN_MARK_MNTNS = 0x110
FAN_REPORT_MNT = 0x4000
FAN_MNT_ATTACH = 0x01000000
FAN_MNT_DETACH = 0x02000000
FAN_EVENT_INFO_TYPE_FID = 1
FAN_EVENT_INFO_TYPE_DFID_NAME = 2
FAN_EVENT_INFO_TYPE_DFID = 3
FAN_ALLOW = 1
FAN_DENY = 2

# linux/inotify.h
IN_MODIFY = 0x002
IN_ATTRIB = 0x004
IN_CLOSE_WRITE = 0x008
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
IN_DONT_FOLLOW = 0x02000000
IN_EXCL_UNLINK = 0x04000000
IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

# linux/openat2.h, asm-generic/unistd.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20
_SYS_OPENAT2 = 437

# linux/netlink.h, linux/connector.h, linux/cn_proc.h
NETLINK_SOCK_DIAG = 4
NETLINK_CONNECTOR = 11
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
CN_IDX_PROC = 1
CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1
PROC_EVENT_NONE = 0x0
PROC_EVENT_FORK = 0x1
PROC_EVENT_EXEC = 0x2
PROC_EVENT_UID = 0x4
PROC_EVENT_GID = 0x40
PROC_EVENT_SID = 0x80
PROC_EVENT_PTRACE = 0x100
PROC_EVENT_COMM = 0x200
PROC_EVENT_EXIT = 0x80000000

# linux/sock_diag.h, linux/inet_diag.h
TCPDIAG_GETSOCK = 18
SOCK_DIAG_BY_FAMILY = 20
SOCK_DESTROY = 21
INET_DIAG_INFO = 2

# linux/tcp_states.h
TCP_ESTABLISHED = 1
TCP_SYN_SENT = 2
TCP_SYN_RECV = 3
TCP_FIN_WAIT1 = 4
TCP_FIN_WAIT2 = 5
TCP_TIME_WAIT = 6
TCP_CLOSE = 7
TCP_LAST_ACK = 9
TCP_LISTEN = 10
TCP_CLOSING = 11

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_GET_NAME = 16

# linux/sched.h
CLONE_NEWNET = 0x40000000

# linux/capability.h
CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_SETUID = 7
CAP_SYS_MODULE = 16
CAP_SYS_RAWIO = 17
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_MKNOD = 27
CAP_SETFCAP = 31
CAP_PERFMON = 38

# linux/bpf.h
BPF_CGROUP_INET_INGRESS = 0
BPF_CGROUP_INET_EGRESS = 1
BPF_CGROUP_INET4_CONNECT = 10
BPF_PROG_TYPE_CGROUP_SKB = 8
BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18
_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BPF_MAP_CREATE, _BPF_MAP_UPDATE_ELEM, _BPF_PROG_LOAD, _BPF_PROG_ATTACH, _BPF_PROG_DETACH = 0, 2, 5, 8, 9
_BPF_PROG_GET_FD_BY_ID, _BPF_OBJ_GET_INFO_BY_FD, _BPF_PROG_QUERY = 13, 15, 16
_BPF_MAP_TYPE_ARRAY, _BPF_F_ALLOW_MULTI = 2, 2
_BPF_INFO_NAME, _BPF_NAME_BYTES = 64, 16
_MOST_ATTACHED = 64

# linux/seccomp.h
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}

# linux/nsfs.h
_NS_GET_PARENT = 0xB702

# linux/pidfd.h
_PIDFD_INFO_COREDUMP = 1 << 4
_PIDFD_COREDUMP_USER = 1 << 2
_PIDFD_INFO = struct.Struct("=Q56xII")
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11

# asm-generic/socket.h
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
SO_PEERPIDFD = 77
SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5

# bits/statfs.h: no architecture needs more
_STATFS_BYTES = 256

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_HANDLE_FID = 0x200
MOST_HANDLE_BYTES = 128

FILE_HANDLE = struct.Struct("=Ii")
"""Before a handle's opaque bytes: how many there are, and of which type."""

_libc: ctypes.CDLL | None = None


def _call(name: str, *arguments: object) -> int:
    global _libc
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def fanotify_init(flags: int) -> int:
    """fanotify_init(2); event descriptors are opened read-only, close-on-exec and without touching access times."""
    return _call("fanotify_init", ctypes.c_uint(flags), ctypes.c_uint(os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE))


def fanotify_mark(group: int, flags: int, mask: int, directory: int, path: bytes | None) -> None:
    """fanotify_mark(2). path None marks what `directory` itself is open on."""
    _call("fanotify_mark", group, ctypes.c_uint(flags), ctypes.c_uint64(mask), directory, path)


def inotify_init() -> int:
    """inotify_init1(2), non-blocking and close-on-exec."""
    return _call("inotify_init1", IN_NONBLOCK | IN_CLOEXEC)


def inotify_add_watch(group: int, path: bytes, mask: int) -> int:
    """inotify_add_watch(2): the watch descriptor, the same one again for the same inode."""
    return _call("inotify_add_watch", group, path, ctypes.c_uint32(mask))


def inotify_rm_watch(group: int, watch: int) -> None:
    """inotify_rm_watch(2)."""
    _call("inotify_rm_watch", group, watch)


def file_handle(descriptor: int) -> bytes:
    """name_to_handle_at(2) on an open file: type and opaque bytes, as fanotify reports them after the fsid."""
    buffer = ctypes.create_string_buffer(FILE_HANDLE.size + MOST_HANDLE_BYTES)
    mount = ctypes.c_int()
    for flags in (AT_EMPTY_PATH | AT_HANDLE_FID, AT_EMPTY_PATH):
        FILE_HANDLE.pack_into(buffer, 0, MOST_HANDLE_BYTES, 0)
        try:
            _call("name_to_handle_at", descriptor, b"", buffer, ctypes.byref(mount), flags)
        except OSError:
            if flags == AT_EMPTY_PATH:
                raise
        else:
            break
    size, _ = FILE_HANDLE.unpack_from(buffer)
    return buffer.raw[: FILE_HANDLE.size + size]


def open_below(root: int, path: bytes, flags: int, resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) -> int:
    """openat2(2): open `path` as a process whose root is `root` would, and never outside of it."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _call("syscall", ctypes.c_long(_SYS_OPENAT2), root, path, ctypes.c_char_p(how), ctypes.c_size_t(len(how)))


def file_system(descriptor: int) -> int:
    """f_type of fstatfs(2): linux/magic.h names them. 0 where it cannot be told."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    try:
        _call("fstatfs", descriptor, buffer)
    except OSError:
        return 0
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)


def enter_network(namespace: int) -> None:
    """setns(2) of the calling thread into the network namespace of a pidfd or of an open ns/net link."""
    _call("setns", namespace, CLONE_NEWNET)


def parent_namespace(namespace: int) -> int:
    """NS_GET_PARENT (ioctl_ns(2)). Raises OSError EPERM where the parent is outside of what we may see."""
    return fcntl.ioctl(namespace, _NS_GET_PARENT)


def has_ended(pidfd: int) -> bool:
    """A zombie has: it runs no more, though it can still be signalled (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def dumpable(pidfd: int) -> bool | None:
    """Does the kernel give this process out to its own user (PR_GET_DUMPABLE)? None before Linux 6.16, or if gone."""
    answer = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_COREDUMP, 0, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer)
    except OSError:
        return None
    known, how, _ = _PIDFD_INFO.unpack(answer)
    return bool(how & _PIDFD_COREDUMP_USER) if known & _PIDFD_INFO_COREDUMP else None


def keep_name() -> None:
    """PR_SET_NAME of the calling thread to the name that it has (prctl(2)): an event, and no change."""
    name = ctypes.create_string_buffer(16)
    nothing = (ctypes.c_ulong(0),) * 3
    _call("prctl", PR_GET_NAME, name, *nothing)
    _call("prctl", PR_SET_NAME, name, *nothing)


def forbid_tracing() -> bool:
    """PR_SET_DUMPABLE 0 (prctl(2)): no core dumps, no attaching without CAP_SYS_PTRACE. True when it holds."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("prctl", PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return _call("prctl", PR_GET_DUMPABLE, *(ctypes.c_ulong(0),) * 4) == 0


def die_with_parent(parent: int) -> bool:
    """PR_SET_PDEATHSIG (prctl(2)): SIGKILL once the thread that started us ends. False where it has ended already."""
    _call("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *(ctypes.c_ulong(0),) * 3)
    return os.getppid() == parent


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """bpf(2): its result, and the attributes as the kernel left them."""
    number = _SYS_BPF.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "bpf")
    told = ctypes.create_string_buffer(attributes, len(attributes))
    size = ctypes.c_uint(len(attributes))
    return _call("syscall", ctypes.c_long(number), ctypes.c_int(command), told, size), told.raw


def seccomp(operation: int, flags: int, argument: object) -> int:
    """seccomp(2)."""
    number = _SYS_SECCOMP.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "seccomp")
    return _call("syscall", ctypes.c_long(number), ctypes.c_uint(operation), ctypes.c_uint(flags), argument)


def bpf_map_create(size: int, name: bytes) -> int:
    """An array of one value of so many bytes, all zero."""
    kind = struct.pack("=IIIIIIIII16s", _BPF_MAP_TYPE_ARRAY, 4, size, 1, 0, 0, 0, 0, 0, name)[:44]
    return bpf(_BPF_MAP_CREATE, kind)[0]


def bpf_map_write(map_: int, value: bytes) -> None:
    """The one value of such an array, by one store where it is a word."""
    key, content = ctypes.c_uint32(0), ctypes.create_string_buffer(value, len(value))
    bpf(_BPF_MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", map_, ctypes.addressof(key), ctypes.addressof(content), 0))


def bpf_load(code: bytes, direction: int, name: bytes, kind: int = BPF_PROG_TYPE_CGROUP_SKB) -> int:
    """A program that is attached at a control group."""
    instructions, license_ = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"")
    where = ctypes.addressof(instructions), ctypes.addressof(license_)
    told = struct.pack("=IIQQIIQII16sII", kind, len(code) // 8, *where, 0, 0, 0, 0, 0, name, 0, direction)
    return bpf(_BPF_PROG_LOAD, told)[0]


def bpf_attach(group: int, program: int, direction: int) -> None:
    """To a control group, beside what others have attached, for as long as there is that group."""
    bpf(_BPF_PROG_ATTACH, struct.pack("=iIII", group, program, direction, _BPF_F_ALLOW_MULTI))


def bpf_try_attaching(program: int, direction: int) -> None:
    """Whether we might, without attaching it. Raises OSError where not."""
    try:
        bpf_attach(-1, program, direction)
    except OSError as error:
        if error.errno != errno.EBADF:  # which is said to those alone who may attach it
            raise


def bpf_detach(group: int, program: int, direction: int) -> None:
    """Raises OSError ENOENT where it is not attached."""
    bpf(_BPF_PROG_DETACH, struct.pack("=iIII", group, program, direction, 0))


def bpf_attached(group: int, direction: int) -> tuple[int, ...]:
    """Numbers of the programs that are attached to this very group."""
    numbers = (ctypes.c_uint32 * _MOST_ATTACHED)()
    query = struct.Struct("=IIIIQI")
    asked = query.pack(group, direction, 0, 0, ctypes.addressof(numbers), _MOST_ATTACHED)
    _, told = bpf(_BPF_PROG_QUERY, asked)
    return tuple(numbers[: query.unpack(told)[5]])


def bpf_program(number: int) -> int:
    """A descriptor of the program with this number. Needs CAP_SYS_ADMIN."""
    return bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))[0]


def bpf_name(program: int) -> bytes:
    """The name that it was loaded with."""
    info = ctypes.create_string_buffer(_BPF_INFO_NAME + _BPF_NAME_BYTES)
    bpf(_BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", program, len(info), ctypes.addressof(info)))
    return info.raw[_BPF_INFO_NAME:].rstrip(b"\0")
