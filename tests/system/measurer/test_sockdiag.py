"""What the kernel says of connections, and what others would like it to have said."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from measurer import kernel as k
from measurer.sockdiag import Diagnosis

_LISTEN = 1 << 10


@pytest.mark.skipif(os.geteuid() != 0, reason="writing to another process's netlink port takes CAP_NET_ADMIN")
def test_an_end_of_the_list_that_the_kernel_did_not_send_ends_nothing() -> None:
    diagnosis = Diagnosis()
    list(diagnosis.dump(_LISTEN))  # the kernel gives the port with the first request
    port = diagnosis._socket.getsockname()[0]
    end = struct.pack("=IHHIIi", 20, k.NLMSG_DONE, 0, 1, port, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, k.NETLINK_SOCK_DIAG) as forger:
            forger.sendto(end, (port, 0))
        assert inode in {each.inode for each in diagnosis.dump(_LISTEN)}
    diagnosis.close()
