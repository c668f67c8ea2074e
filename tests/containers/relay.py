"""Stands for the sidecar in its container: spawns the measurer beside itself, and hands on what both ends say."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys

from attestation.channel import MOST_BYTES


def main() -> None:
    outer = socket.socket(fileno=int(sys.argv[1]))
    inner, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", "-m", "measurer", "--channel", str(theirs.fileno())]
    with theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True), outer, inner:
        theirs.close()
        ends = {outer.fileno(): (outer, inner), inner.fileno(): (inner, outer)}
        poll = select.poll()
        for descriptor in ends:
            poll.register(descriptor, select.POLLIN)
        while all(_hand_on(*ends[descriptor]) for descriptor, _ in poll.poll()):
            pass


def _hand_on(one: socket.socket, other: socket.socket) -> bool:
    descriptors: list[int] = []
    try:
        datagram, descriptors, _, _ = socket.recv_fds(one, MOST_BYTES, 4)
        if datagram:
            socket.send_fds(other, [datagram], descriptors)
    except ConnectionError:  # an end hung up, with something unread
        return False
    finally:
        for each in descriptors:
            os.close(each)
    return bool(datagram)


if __name__ == "__main__":
    main()
