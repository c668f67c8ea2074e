"""What somebody asked of `proofbeat up`, and whether it can be had: looked at before anything is started."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InvalidInput
from policies.author.learning.learned import Learned
from proofbeat.up.listening import Port
from proofbeat.up.program import Program
from xds.resources.service import Application

_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Wishes:
    """include: paths that the policy measures; empty: learned. volatile: patterns of what of it nobody judges.

    learning: seconds. learned: before, and not to be learned now. notified: and started under a seccomp filter that has
    us asked for what was not learned. calls: address on which the service is called.
    attempt: close and open it once, then end. acts: then an intruder does each of his in it, and a new instance comes
    after each. keep: the folder of the run, whatever comes of it. Raises InvalidInput
    for a report that there will not be, and for what is both learned before and said now.
    """

    program: Program
    include: tuple[Path, ...] = ()
    volatile: tuple[str, ...] = ()
    learning: float = 3.0
    learned: Learned | None = None
    notified: bool = False
    calls: str | None = None
    protocol: Application = "http"
    attempt: bool = False
    acts: bool = False
    as_json: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if self.as_json and not self.attempt:
            raise InvalidInput(
                "there is nothing to report: it is what --try found", where="--json", mend="Add --try, or leave it out."
            )
        if self.acts and not self.attempt:
            raise InvalidInput("acts are part of trying it", where="--acts", mend="Add --try.")
        if self.acts and self.learned is not None:
            raise InvalidInput(
                "an intruder was not there when it was learned, so that he is told before he does anything",
                where="--acts",
                mend="Leave out --learned: it is watched for a moment then, with the intruder beside it.",
            )
        if self.notified and (self.learned is None or not self.learned.calls):
            raise InvalidInput(
                "nobody has learned what it calls",
                where="--notified",
                mend="Learn it first (`proofbeat policy learn`), and name what that wrote by --learned.",
            )
        if self.learned is not None and (self.include or self.volatile):
            raise InvalidInput(
                "what is measured was said when it was learned",
                where="--learned",
                mend="Leave out --include and --volatile, or learn it anew with them.",
            )


def listenable(text: str) -> str:
    """An address of this machine where nobody listens yet. Raises InvalidInput."""
    where, mend = f"--listen {text}", "Write an IP address of this machine and a free port, as 127.0.0.1:7000."
    host, _, number = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        port = Port(int(number), str(address))
    except ValueError as error:
        raise InvalidInput("this is no address", where=where, mend=mend) from error
    if not 0 < port.number <= _MOST_PORT:
        raise InvalidInput(f"a port is a number from 1 to {_MOST_PORT}", where=where, mend=mend)
    with closing(socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((port.host, port.number))
        except OSError as error:
            raise InvalidInput(f"nothing can listen there: {error.strerror}", where=where, mend=mend) from error
    return str(port)


def triable(measured: Sequence[str]) -> str:
    """The folder into which a file is laid to close the program. Raises InvalidInput."""
    folders = [each for each in measured if Path(each).is_dir()]
    if not folders:
        raise InvalidInput(
            "it lays a file into a measured folder, and only files are measured",
            where="--try",
            mend="Include a folder, or leave out --try and change one of the files yourself.",
        )
    if not os.access(folders[0], os.W_OK | os.X_OK):
        raise InvalidInput(
            "no file can be laid down there", where=folders[0], mend="Include a folder that is writable."
        )
    return folders[0]
