"""A small real service for the demo to protect: pages from its folder over HTTP/1.1, and an echo over TCP.

Copied into the service's own folder and run from there with nothing but the standard library; it knows nothing
of Proofbeat. Usage: service.py NAME ADDRESS HTTP_PORT ECHO_PORT
"""

import asyncio
import ctypes  # noqa: F401 - what is sent to it imports these; their libraries are this program's own by then
import json
import mmap  # noqa: F401 - as above
import shutil  # noqa: F401 - as above
import subprocess  # noqa: F401 - as above
import sys
from pathlib import Path

PAGES = Path(__file__).parent / "pages"
KEPT: list[dict[str, object]] = []


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers GETs on one kept-alive connection."""
    try:
        while request := await reader.readline():
            while (await reader.readline()).strip():
                pass
            name = request.split(b" ")[1].decode().strip("/") or "index.html"
            found = PAGES / Path(name).name
            body = found.read_bytes() if found.is_file() else b"no such page"
            status = b"200 OK" if found.is_file() else b"404 Not Found"
            writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()
    except (ConnectionError, IndexError):
        pass
    finally:
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes."""
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def execute(source: str) -> None:
    """What it opens stays open. What this machine refuses is told, and the service goes on."""
    space: dict[str, object] = {}
    KEPT.append(space)
    try:
        exec(source, space)  # noqa: S102 - what a hole in a service comes to
    except OSError as error:
        print(error, file=sys.stderr)


async def main() -> None:
    name, address, http, tcp = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    await asyncio.start_server(page, address, http)
    await asyncio.start_server(echo, address, tcp)
    print(name, "serves", flush=True)
    # A line on stdin is code for this process, as JSON, or names a program for it to run: what a successful attacker
    # would make it do.
    commands = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        if line.startswith(b'"'):
            execute(json.loads(line))
            continue
        started = await asyncio.create_subprocess_exec(*line.decode().split())
        await started.wait()


if __name__ == "__main__":
    asyncio.run(main())
