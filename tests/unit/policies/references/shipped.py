"""Packages, bills of materials and policies of others, as tests need them; and every way of packing."""

from __future__ import annotations

import base64
import bz2
import gzip
import importlib
import json
import lzma
import sys
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.policies.references.packing import Put, packed

ONE, TWO = "1a" * 32, "2b" * 32
KEY = ec.generate_private_key(ec.SECP256R1())
CONTROL = b"Package: web\nVersion: 1.5-1\nArchitecture: amd64\nDescription: a service\n and more\n"
APP = (Put("./usr"), Put("./usr/bin"), Put("./usr/bin/web", b"main", mode=0o755), Put("./etc/web.conf", b"conf"))


# --- packing ---

ZSTD: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def zstd(content: bytes, window: int = 20) -> bytes:
    """With a checksum, as the zstd program does it."""
    parameters = ZSTD.CompressionParameter
    options = {parameters.checksum_flag: True, parameters.window_log: window}
    packed: bytes = ZSTD.compress(content, options=options)
    return packed


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd,
}


# --- Debian packages ---


def ar(*members: tuple[bytes, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members:
        parts.append(b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(content)))
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def deb(
    *data: Put,
    control: bytes = CONTROL,
    conffiles: bytes = b"",
    scripts: bool = False,
    pack: Callable[[bytes], bytes] = lzma.compress,
) -> bytes:
    inside = [Put("./control", control)]
    inside += [Put("./conffiles", conffiles)] if conffiles else []
    inside += [Put("./postinst", b"#!/bin/sh", mode=0o755)] if scripts else []
    members = ((b"control.tar.xz", pack(packed(*inside))), (b"data.tar.xz", pack(packed(*data))))
    return ar((b"debian-binary", b"2.0\n"), *members)


# --- bills of materials ---


def component(name: str, *stated: tuple[str, str], kind: str = "file", **more: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "hashes": [{"alg": alg, "content": value} for alg, value in stated], **more}


def cyclonedx(*components: Any) -> dict[str, Any]:
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": list(components)}


def spdx(*files: Any) -> dict[str, Any]:
    return {"spdxVersion": "SPDX-2.3", "files": list(files)}


def spdx_file(name: str, **checksums: str) -> dict[str, Any]:
    stated = [{"algorithm": algorithm, "checksumValue": value} for algorithm, value in checksums.items()]
    return {"SPDXID": f"SPDXRef-{len(name)}", "fileName": name, "checksums": stated}


# --- Keylime ---


def keylime_policy(**more: Any) -> dict[str, Any]:
    return {
        "meta": {"version": 1, "generator": 0},
        "release": 0,
        "digests": {"boot_aggregate": [ONE], "/usr/bin/a": [ONE, TWO], "/usr/lib/weak.so": ["0" * 40]},
        "excludes": [],
        "keyrings": {},
        "ima": {"ignored_keyrings": [], "log_hash_alg": "sha1", "dm_policy": None},
        "ima-buf": {},
        "verification-keys": "",
        **more,
    }


def signed(
    policy: dict[str, Any], key: ec.EllipticCurvePrivateKey = KEY, kind: str = "application/vnd.keylime+json"
) -> dict[str, Any]:
    """As keylime-policy signs it (DSSE, ECDSA in DER)."""
    payload = json.dumps(policy).encode()
    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    signature = key.sign(encoded, ec.ECDSA(hashes.SHA256()))
    signatures = [{"keyid": "k", "sig": base64.b64encode(signature).decode()}]
    return {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": signatures}
