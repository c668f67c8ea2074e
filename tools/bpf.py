"""The kernel's programs compiled: `bpf.py` writes the object that is in git and its digest, `bpf.py --check` says
whether they still are what the source compiles to. The compiler comes from PyPI (the group `bpf` of pyproject.toml) and
makes the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "measurer" / "bpf" / "programs"
SOURCE, OBJECT, DIGEST = FOLDER / "watch.bpf.c", FOLDER / "watch.bpf.o", FOLDER / "watch.bpf.o.sha256"
FLAGS = (
    *("-target", "bpfel-freestanding-none", "-mcpu=v3", "-O2", "-g"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"),
)
UNREAD = (".debug", ".rel.debug", ".eh_frame", ".rel.eh_frame", ".llvm_addrsig", ".rel.BTF")
"""Sections that no loader looks at: most of what the compiler writes."""
_HEAD, _SECTION = struct.Struct("<40xQ10xHHH"), struct.Struct("<IIQQQQIIQQ")


def compiled() -> bytes:
    """Raises CalledProcessError where the source does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / OBJECT.name
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-ffile-prefix-map={FOLDER}=."]
        subprocess.run([*command, "-c", str(SOURCE), "-o", str(made)], check=True, cwd=FOLDER)
        return without_unread(made.read_bytes())


def without_unread(text: bytes) -> bytes:
    """The same object, of which the sections that nobody reads are empty: all others keep their numbers."""
    start, size, count, names = _HEAD.unpack_from(text)
    sections = [list(_SECTION.unpack_from(text, start + number * size)) for number in range(count)]
    table = sections[names]
    words = text[table[4] : table[4] + table[5]]
    made, headers = bytearray(text[:64]), bytearray()
    for each in sections:
        name, at, length = words[each[0] : words.index(0, each[0])].decode(), each[4], each[5]
        if name.startswith(UNREAD):
            each[1] = each[5] = 0
            length = 0
        made += bytes(-len(made) % 8)
        each[4] = len(made)
        made += text[at : at + length]
        headers += _SECTION.pack(*each)
    made += bytes(-len(made) % 8)
    struct.pack_into("<Q", made, 40, len(made))
    return bytes(made + headers)


def main() -> int:
    made = compiled()
    digest = f"{hashlib.sha256(made).hexdigest()}  {OBJECT.name}\n"
    if "--check" not in sys.argv:
        OBJECT.write_bytes(made)
        DIGEST.write_text(digest)
        return 0
    if OBJECT.read_bytes() == made and DIGEST.read_text() == digest:
        return 0
    sys.stderr.write(
        f"{OBJECT.name} is not what {SOURCE.name} compiles to. Run `make bpf`, and commit what it writes.\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
