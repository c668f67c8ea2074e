"""What reference values are built from: archives, images, packages and documents that somebody else made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import InvalidInput
from policies.author.references import layers, sources
from policies.author.references.bounds import Budget
from policies.author.references.build import Wishes
from policies.author.references.sources import Source, Terms
from policies.author.references.streams import chunks, unpacked
from policies.author.references.tree import File, Link, Tree
from policies.model import dialect
from policies.model.metadata import Metadata
from policies.model.references import ReferenceSpec, ReferenceValues
from policies.model.signing import sign, signed_by
from policies.model.writing import reference_values
from tests.fuzz.target import Target, scratch
from tests.unit.policies.references.packing import (
    END,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Layout,
    Put,
    docker_saved,
    gnu,
    linked,
    member,
    packed,
    pax,
)
from tests.unit.policies.references.shipped import (
    APP,
    CONTROL,
    ONE,
    PACKINGS,
    ar,
    component,
    cyclonedx,
    deb,
    keylime_policy,
    signed,
    spdx,
    spdx_file,
)

_MOST = 1 << 20


def _budget() -> Budget:
    return Budget(_MOST)


def _one_meaning(tree: Tree) -> None:
    """Every path is one that the kernel knows, and packing what was found gives the same again."""
    found = dict(tree.walk())
    for path in found:
        assert path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/")[1:])
    puts = [
        Put(path, bytes(node.size), mode=node.mode) if isinstance(node, File) else Put(path, link=node.target)
        for path, node in found.items()
        if isinstance(node, File | Link)
    ]
    if sum(put.content is not None and len(put.content) for put in puts) > _MOST // 4:
        return
    again = dict(
        layers.flattened([layers.read(io.BytesIO(packed(*puts)), _budget(), "x", whiteouts=False)], "x").walk()
    )
    assert again.keys() == {put.path for put in puts}


def archive(data: bytes) -> None:
    """An archive is a file system, or refused."""
    for whiteouts in (False, True):
        with suppress(InvalidInput):
            layer = layers.read(io.BytesIO(data), _budget(), "x", whiteouts=whiteouts)
            below = layers.read(io.BytesIO(_BELOW), _budget(), "x")
            _one_meaning(layers.flattened([below, layer], "x"))


def packing(data: bytes) -> None:
    """What is packed comes out within the bound, or is refused."""
    with suppress(InvalidInput):
        assert sum(map(len, chunks(unpacked(io.BytesIO(data), _budget(), "x")))) <= _MOST


def _written(data: bytes) -> Path:
    path = scratch() / "source"
    path.write_bytes(data)
    return path


def source(data: bytes) -> None:
    """Whatever it is taken for, what is built of it can be written down and read again."""
    with suppress(InvalidInput):
        _builds(_written(data), None)


def _builds(path: Path, kind: Source | None) -> None:
    built = sources.build([path], kind, Terms(Wishes(executables=("**",))), _budget())
    _says_the_same_again(built.spec)


def _says_the_same_again(spec: ReferenceSpec) -> None:
    values = ReferenceValues(metadata=Metadata(name="x"), spec=spec)
    ((value, node),) = dialect.parse(reference_values(values), "x")
    assert dialect.validate(value, node, ReferenceValues, "x") == values


def image(data: bytes) -> None:
    """One document of an image is the mutation's, behind the digest by which it is found."""
    which, content = data[:1], data[1:]
    made = Layout()
    manifest = {
        "config": made.blob(_CONFIG, OCI_CONFIG),
        "layers": [made.blob(gzip.compress(_BELOW, mtime=0), OCI_LAYER)],
    }
    if which == b"c":
        manifest["config"] = made.blob(content, OCI_CONFIG)
    made.images = [made.blob(content, OCI_MANIFEST) if which == b"m" else made.document(manifest, OCI_MANIFEST)]
    if which == b"i":
        made.files["index.json"] = content
    path = scratch() / "image.tar"
    if which == b"d":
        path.write_bytes(packed(*docker_saved({"layer": _BELOW}, listed=content)))
    else:
        made.archive(path)
    with suppress(InvalidInput):
        _builds(path, Source.DOCKER if which == b"d" else Source.OCI)


def signature(data: bytes) -> None:
    """No other text is a signature of these bytes."""
    text = data.decode("utf-8", "replace")
    assert signed_by(b"content", text, [_KEY.public_key()]) is None or text.strip() == _SIGNED


_KEY = ec.derive_private_key(7, ec.SECP256R1())
_SIGNED = sign(b"content", _KEY)
_BELOW = packed(
    Put("bin/sh", linked(b"/lib/ld.so"), mode=0o755), Put("lib/ld.so", b"1", mode=0o755), Put("etc", link="/lib")
)
_CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Entrypoint": ["sh", "--"], "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(_BELOW).hexdigest()}"]},
    }
).encode()


def _archives() -> tuple[bytes, ...]:
    puts = (Put("etc"), Put("etc/a", b"1"), Put("bin/.wh.sh", b""), Put("x/.wh..wh..opq", b""), Put("b", hard="etc/a"))
    odd = pax({"path": "p" * 120, "size": "3"}) + member(b"x", b"abc") + gnu(b"L", b"n" * 120) + member(b"y") + END
    return packed(*puts, Put("c", link="../x"), Put("d", device=True)), odd, _BELOW


def _documents() -> tuple[bytes, ...]:
    file = component("/srv/a", ("SHA-256", ONE))
    nested = component("app", kind="application", components=[file])
    made = (
        cyclonedx(nested, file),
        spdx(spdx_file("./a", SHA256=ONE)),
        keylime_policy(excludes=["^/tmp/.*$"]),
        signed(keylime_policy()),
    )
    return tuple(json.dumps(each).encode() for each in made)


def _packages() -> tuple[bytes, ...]:
    parts = ((b"control.tar", packed(Put("control", CONTROL))), (b"data.tar", packed(*APP)))
    return deb(*APP, conffiles=b"/etc/web.conf\n"), ar((b"debian-binary", b"2.0\n"), *parts)


def _images() -> tuple[bytes, ...]:
    made = Layout().add(_BELOW)
    name = f"blobs/{made.images[0]['digest'].replace(':', '/')}"
    index = json.dumps({"schemaVersion": 2, "manifests": made.images}).encode()
    listed = next(put.content for put in docker_saved({"layer": _BELOW}) if put.path == "manifest.json")
    return b"c" + _CONFIG, b"m" + made.files[name], b"i" + index, b"d" + (listed or b"")


_HEADERS = (b"ustar\x0000", b"ustar  \0", b"../", b"/.wh.", b".wh..wh..opq", b" path=", b" size=", b"\x80" + b"\0" * 10)
_WORDS = (
    b'"digest": "sha256:',
    b'"mediaType": "',
    b'"size": ',
    b'"SHA-256"',
    b"[" * 40,
    b'"components": [',
    b"null",
    b"1e999",
)

TARGETS = (
    Target("archive", archive, _archives, _HEADERS, 16_384),
    Target(
        "packing",
        packing,
        lambda: tuple(pack(b"abc" * 50) for pack in PACKINGS.values()),
        (b"\x1f\x8b\x08", b"BZh9"),
        2048,
    ),
    Target(
        "reference-source", source, lambda: (*_archives(), *_documents(), *_packages()), (*_HEADERS, *_WORDS), 16_384
    ),
    Target("image", image, _images, _WORDS),
    Target("reference-signature", signature, lambda: (_SIGNED.encode(), b"..", b"a..b"), (b"..", b"\n", b"="), 512),
)
