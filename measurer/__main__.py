"""`python -m measurer --channel FD`: started by a sidecar with one end of a SOCK_SEQPACKET socketpair."""

from __future__ import annotations

import sys

_USAGE = "measurer: started by a sidecar as `python -m measurer --channel FD`, FD being its end of a socketpair.\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "--channel" or not arguments[1].isdigit():
        sys.stderr.write(_USAGE)
        return 2
    from measurer.process import run

    try:
        return run(int(arguments[1]))
    except OSError as error:  # a descriptor that is no socket
        sys.stderr.write(f"measurer: descriptor {arguments[1]}: {error.strerror}. {_USAGE}")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
