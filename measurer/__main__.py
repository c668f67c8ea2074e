"""`python -m measurer`: started by a sidecar with one end of a socketpair, or once for a whole node with a socket."""

from __future__ import annotations

import sys

_USAGE = """measurer: started by a sidecar as `python -m measurer --channel FD`, FD being its end of a socketpair,
or for a node as `python -m measurer --listen PATH [--group NAME] [--allow UID[:pod|any|/cgroup]] [--seccomp PATH]`.
"""


def main(arguments: list[str]) -> int:
    if arguments and arguments[0].startswith("--listen"):
        from measurer import node

        return node.main(arguments)
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
