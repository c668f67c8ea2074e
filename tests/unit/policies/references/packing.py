"""Archives and images as tests need them: by the standard library where they are honest, byte by byte where not."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.author.references.bounds import Budget

BLOCK = 512
END = bytes(2 * BLOCK)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def budget(most_bytes: int = 1 << 30) -> Budget:
    return Budget(most_bytes)


# --- one archive ---


def header(
    name: bytes = b"a",
    *,
    flag: bytes = b"0",
    size: int | bytes = 0,
    target: bytes = b"",
    mode: bytes = b"0000644\0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header as it is asked for, possible or not."""
    length = b"%011o\0" % size if isinstance(size, int) else size
    owner, fresh = b"0000000\0", b"00000000000\0"
    fields = [
        name.ljust(100, b"\0"),
        mode,
        owner,
        owner,
        length,
        fresh,
        b" " * 8,
        flag,
        target.ljust(100, b"\0"),
        magic,
    ]
    block = b"".join(fields).ljust(345, b"\0") + prefix
    block = block.ljust(BLOCK, b"\0")
    stated = b"%06o\0 " % sum(block) if checksum is None else checksum
    return block[:148] + stated + block[156:]


def member(name: bytes = b"a", content: bytes = b"", **fields: Any) -> bytes:
    """One file with its content."""
    return header(name, size=len(content), **fields) + padded(content)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def pax(records: Mapping[str, str | bytes], flag: bytes = b"x") -> bytes:
    """An extended header."""
    content = b"".join(_record(key.encode(), _bytes(value)) for key, value in records.items())
    return header(b"pax", flag=flag, size=len(content)) + padded(content)


def gnu(flag: bytes, name: bytes) -> bytes:
    """A long name or target as GNU has it."""
    return header(b"././@LongLink", flag=flag, size=len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def linked(loader: bytes, offset: int = 120) -> bytes:
    """A 64-bit program that asks for this loader (elf(5)). offset: where in it the loader's name stands."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    name = loader + b"\0"
    return (head + struct.pack("<IIQQQQQQ", 3, 4, offset, 0, 0, len(name), len(name), 1)).ljust(offset, b"\0") + name


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d %s=%s\n" % (length, key, value)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


@dataclass(frozen=True)
class Put:
    """One path of an honest archive. link, hard: where it leads. None of all for a folder."""

    path: str
    content: bytes | None = None
    link: str = ""
    hard: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    device: bool = False

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.path)
        info.mode, info.uid, info.gid = self.mode, self.uid, self.gid
        if self.content is not None:
            info.size = len(self.content)
        elif self.link:
            info.type, info.linkname = tarfile.SYMTYPE, self.link
        elif self.hard:
            info.type, info.linkname = tarfile.LNKTYPE, self.hard
        else:
            info.type = tarfile.CHRTYPE if self.device else tarfile.DIRTYPE
        return info


def packed(*puts: Put, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive by the standard library."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for put in puts:
            archive.addfile(put.info(), None if put.content is None else io.BytesIO(put.content))
    return file.getvalue()


# --- images ---


@dataclass
class Layout:
    """An OCI image layout, put together blob by blob: name -> content."""

    files: dict[str, bytes] = field(default_factory=lambda: {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'})
    images: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, content: bytes, kind: str) -> dict[str, Any]:
        self.files[f"blobs/sha256/{digest(content)}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest(content)}", "size": len(content)}

    def document(self, value: Any, kind: str) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), kind)

    def image(
        self, *layers: bytes, platform: str = "linux/amd64", config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The descriptor of an image with these layers, packed with gzip."""
        os, architecture = platform.split("/")[:2]
        manifest = {
            "schemaVersion": 2,
            "config": self.document(configured(layers, os, architecture, config), OCI_CONFIG),
            "layers": [self.blob(gzip.compress(layer, mtime=0), OCI_LAYER) for layer in layers],
        }
        return self.document(manifest, OCI_MANIFEST) | {"platform": {"os": os, "architecture": architecture}}

    def add(self, *layers: bytes, name: str = "latest", **more: Any) -> Layout:
        self.images.append(self.image(*layers, **more) | {"annotations": {REF_NAME: name}})
        return self

    def written(self, folder: Path) -> Path:
        self._index()
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def archive(self, file: Path) -> Path:
        self._index()
        file.write_bytes(packed(*(Put(name, content) for name, content in self.files.items())))
        return file

    def _index(self) -> None:
        self.files.setdefault("index.json", json.dumps({"schemaVersion": 2, "manifests": self.images}).encode())


OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


def configured(
    layers: Iterable[bytes], os: str = "linux", architecture: str = "amd64", config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    diff_ids = [f"sha256:{digest(layer)}" for layer in layers]
    return {
        "os": os,
        "architecture": architecture,
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def docker_saved(
    layers: Mapping[str, bytes], config: Mapping[str, Any] | None = None, listed: bytes | None = None
) -> list[Put]:
    """What `docker save` wrote before version 25. layers: name in the archive -> content. listed: its manifest.json."""
    content = json.dumps(configured(layers.values(), config=config)).encode()
    name = f"{digest(content)}.json"
    image = {"Config": name, "RepoTags": ["web:1.5"], "Layers": list(layers)}
    files = {name: content, **layers, "manifest.json": listed or json.dumps([image]).encode()}
    return [Put(each, content) for each, content in files.items()]
