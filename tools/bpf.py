"""The kernel's programs compiled: `bpf.py` writes the objects that are in git and their digests, `bpf.py --check` says
whether they still are what the sources compile to. The compiler comes from PyPI (the group `bpf` of pyproject.toml) and
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
FLAGS = (
    *("-target", "bpfel-freestanding-none", "-mcpu=v3", "-O2", "-g"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"),
)
UNREAD = (".debug", ".rel.debug", ".eh_frame", ".rel.eh_frame", ".llvm_addrsig", ".rel.BTF")
"""Sections that no loader looks at: most of what the compiler writes."""
_HEAD, _SECTION = struct.Struct("<40xQ10xHHH"), struct.Struct("<IIQQQQIIQQ")


def compiled(source: Path) -> bytes:
    """Raises CalledProcessError where it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / source.with_suffix(".o").name
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, f"-ffile-prefix-map={FOLDER}=."]
        subprocess.run([*command, "-c", str(source), "-o", str(made)], check=True, cwd=FOLDER)
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
    stale = [each for each in sorted(FOLDER.glob("*.bpf.c")) if not _is_kept(each, write="--check" not in sys.argv)]
    for each in stale:
        sys.stderr.write(f"{each.name} compiles to another object. Run `make bpf`, and commit what it writes.\n")
    return int(bool(stale))


def _is_kept(source: Path, *, write: bool) -> bool:
    """Is the object beside it the one that it compiles to? write: it becomes that."""
    made, kept = compiled(source), source.with_suffix(".o")
    told, digest = source.with_suffix(".o.sha256"), f"{hashlib.sha256(made).hexdigest()}  {kept.name}\n"
    if write:
        kept.write_bytes(made)
        told.write_text(digest)
    return kept.read_bytes() == made and told.read_text() == digest


if __name__ == "__main__":
    sys.exit(main())
