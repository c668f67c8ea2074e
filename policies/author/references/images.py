"""Container images on disk: an OCI image layout, and what `docker save` writes.

Everything is found by digest, and what does not have the digest by which it was found is refused: blobs, and layers
once they are unpacked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from attestation import strictjson
from attestation.errors import InvalidInput
from policies.author.references import layers
from policies.author.references.blobs import Blobs
from policies.author.references.bounds import Budget
from policies.author.references.layers import Layer
from policies.author.references.streams import Hashed, Stream, chunks, unpacked
from policies.author.references.tree import Parts, Tree

LAYOUT, DOCKER = "oci-layout", "manifest.json"
"""The files by which the two kinds of image are known."""

_MOST_LAYERS = 512
_MOST_INDEXES = 4
_MOST_DESCRIPTORS = 100_000
"""In all indexes together."""
_MOST_NAMED = 16
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+(gzip|zstd))?"
    r"|application/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.(gzip|zstd))?"
)
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
_AGAIN = "Save the image again."
_WHICH = "Say which one by --platform linux/amd64 and --ref NAME."

Fields = Mapping[str, Any]
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which image of several. platform: `linux/arm64`, or `linux/arm64/v8`. name: as the image is tagged there."""

    platform: str = ""
    name: str = ""

    def takes(self, platform: str) -> bool:
        return not self.platform or platform == self.platform or platform.startswith(f"{self.platform}/")


@dataclass(frozen=True, slots=True)
class Start:
    """What a container of the image executes first, in which folder, and where it looks for programs (PATH)."""

    words: tuple[str, ...] = ()
    folder: str = "/"
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """digest: of its manifest; of its configuration where there is no manifest (`docker save`)."""

    tree: Tree
    start: Start
    platform: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Shipped:
    """A layer as the image names it. content: digest, unpacked. packed, size: of the file, where they are stated."""

    name: str
    content: str
    packed: str = ""
    size: int | None = None


def layout(blobs: Blobs, wanted: Wanted, budget: Budget, where: str, mounted: Parts = ()) -> Image:
    """The image of an OCI layout. Raises InvalidInput, naming the images that would do where several do."""
    version = _object(blobs.small(LAYOUT), f"{where}: {LAYOUT}").get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise InvalidInput(f"an image layout of version {version!r}", where=where, mend="Version 1 is known here.")
    index = _object(blobs.small("index.json"), f"{where}: index.json")
    descriptor = _chosen(index, wanted, blobs, where)
    manifest = _document(blobs, descriptor, where)
    configuration = _document(blobs, _field(manifest, "config", dict, where), where)
    found = _fields(manifest, "layers", dict, where)
    foreign = next((each for each in found if not _LAYER.fullmatch(str(each.get("mediaType")))), None)
    if foreign is not None:
        kind = str(foreign.get("mediaType"))[:100]
        raise InvalidInput(f"a layer of the type {kind!r}", where=where, mend="Name an image for a container.")
    contents = _contents(configuration, len(found), where)
    shipped = [
        _Shipped(_blob(each, where), content, _digest(each, where), _field(each, "size", int, where))
        for each, content in zip(found, contents, strict=True)
    ]
    return _image(blobs, shipped, configuration, wanted, budget, where, mounted, _digest(descriptor, where))


def saved(blobs: Blobs, wanted: Wanted, budget: Budget, where: str, mounted: Parts = ()) -> Image:
    """The image in what `docker save` wrote. Raises InvalidInput as `layout`."""
    listed = _json(blobs.small(DOCKER), f"{where}: {DOCKER}")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise InvalidInput("its manifest.json is no list of images", where=where, mend=_AGAIN)
    found = [each for each in listed if not wanted.name or wanted.name in _tags(each, where)]
    if len(found) != 1:
        raise _several(len(found), {tag for each in listed for tag in _tags(each, where)}, where)
    name = _field(found[0], "Config", str, where)
    content = blobs.small(name)
    configuration = _object(content, f"{where}: {name}")
    names = _fields(found[0], "Layers", str, where)
    contents = _contents(configuration, len(names), where)
    shipped = [_Shipped(name, content) for name, content in zip(names, contents, strict=True)]
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return _image(blobs, shipped, configuration, wanted, budget, where, mounted, digest)


def _image(
    blobs: Blobs,
    shipped: Sequence[_Shipped],
    configuration: Fields,
    wanted: Wanted,
    budget: Budget,
    where: str,
    mounted: Parts,
    digest: str,
) -> Image:
    platform = _platform(configuration)
    if not wanted.takes(platform):
        raise InvalidInput(f"the image is for {platform or 'no platform'}, not for {wanted.platform}", where=where)
    tree = layers.flattened(_layers(blobs, shipped, budget, where), where, mounted)
    return Image(tree, _start(configuration, where), platform, digest)


# --- choosing one ---


def _chosen(index: Fields, wanted: Wanted, blobs: Blobs, where: str) -> Fields:
    """By name and then by platform."""
    top = [each for each in _fields(index, "manifests", dict, where) if _called(each, wanted.name)]
    found = _within(top, blobs, where)
    found = [each for each in found if each.get("mediaType") in _MANIFESTS and not _stated(each).startswith("unknown/")]
    found = [each for each in found if not _stated(each) or wanted.takes(_stated(each))]
    one = {str(each.get("digest")): each for each in found}
    if len(one) != 1:
        raise _several(len(one), {" ".join((*_names(each), _stated(each))).strip() for each in one.values()}, where)
    return next(iter(one.values()))


def _within(top: Sequence[Fields], blobs: Blobs, where: str) -> list[Fields]:
    """With what is in indexes among them, and in indexes within those; each is read once, however often it is named."""
    known: set[tuple[str, int]] = set()
    found, count = list(top), len(top)
    for _ in range(_MOST_INDEXES):
        deeper = [each for each in found if each.get("mediaType") in _INDEXES]
        found = [each for each in found if each.get("mediaType") not in _INDEXES]
        for each in deeper:
            named = _digest(each, where), _field(each, "size", int, where)
            if named in known:
                continue
            known.add(named)
            below = _fields(_document(blobs, each, where), "manifests", dict, where)
            count += len(below)
            if count > _MOST_DESCRIPTORS:
                what = f"more than {_MOST_DESCRIPTORS} manifests and indexes"
                raise InvalidInput(what, where=where, mend="Save the one image alone.")
            found += below
    return found


def _several(count: int, images: set[str], where: str) -> InvalidInput:
    named = ", ".join(sorted(images - {""})[:_MOST_NAMED])
    what = f"{count} images that would do" + (f"; there are {named}" if named else "")
    return InvalidInput(what, where=where, mend=_WHICH)


def _called(descriptor: Fields, name: str) -> bool:
    return not name or name in _names(descriptor)


def _names(descriptor: Fields) -> list[str]:
    annotations = descriptor.get("annotations")
    return [str(annotations[key]) for key in _NAMES if key in annotations] if isinstance(annotations, dict) else []


def _tags(image: Fields, where: str) -> list[str]:
    return _fields(image, "RepoTags", str, where) if image.get("RepoTags") else []


def _stated(descriptor: Fields) -> str:
    """The platform; builders state `unknown/unknown` of what they add about an image and is none."""
    platform = descriptor.get("platform")
    return _platform(platform) if isinstance(platform, dict) else ""


def _platform(fields: Fields) -> str:
    return "/".join(str(part) for key in ("os", "architecture", "variant") if (part := fields.get(key)))


# --- reading what was chosen ---


def _layers(blobs: Blobs, shipped: Sequence[_Shipped], budget: Budget, where: str) -> list[Layer]:
    asked: dict[str, list[_Shipped]] = {}
    for each in shipped:
        asked.setdefault(blobs.real(each.name), []).append(each)
    read = {name: _layer(stream, asked[name], budget, f"{where}: {name}") for name, stream in blobs.each(asked.keys())}
    return [read[blobs.real(each.name)] for each in shipped]


def _layer(stream: Stream, stated: Sequence[_Shipped], budget: Budget, where: str) -> Layer:
    """Its bytes are hashed as they are and unpacked, while what is in them is read."""
    packed = Hashed(stream, _algorithm(stated[0].packed or stated[0].content))
    content = Hashed(unpacked(packed, budget, where), _algorithm(stated[0].content))
    layer = layers.read(content, budget, where)
    for _ in chunks(packed):
        pass
    for each in stated:
        if each.packed and (each.packed, each.size) != (packed.digest, packed.size):
            raise InvalidInput(f"it is {packed.digest}, {packed.size} bytes", where=where, mend=_AGAIN)
        if each.content != content.digest:
            raise InvalidInput(f"its content is {content.digest}, not {each.content}", where=where, mend=_AGAIN)
    return layer


def _contents(configuration: Fields, count: int, where: str) -> list[str]:
    """The digests of all layers, unpacked."""
    stated = _fields(_field(configuration, "rootfs", dict, where), "diff_ids", str, where)
    if len(stated) != count or count > _MOST_LAYERS:
        raise InvalidInput(
            f"{count} layers, where the image's configuration names {len(stated)} (at most {_MOST_LAYERS} are read)",
            where=where,
            mend=_AGAIN,
        )
    return [_well_formed(digest, where) for digest in stated]


def _document(blobs: Blobs, descriptor: Fields, where: str) -> Fields:
    name, digest = _blob(descriptor, where), _digest(descriptor, where)
    content = blobs.small(name)
    found = f"{_algorithm(digest)}:{hashlib.new(_algorithm(digest), content).hexdigest()}"
    if found != digest or descriptor.get("size") != len(content):
        raise InvalidInput(f"it is {found}, {len(content)} bytes", where=f"{where}: {name}", mend=_AGAIN)
    return _object(content, f"{where}: {name}")


def _blob(descriptor: Fields, where: str) -> str:
    return f"blobs/{_digest(descriptor, where).replace(':', '/')}"


def _digest(descriptor: Fields, where: str) -> str:
    return _well_formed(_field(descriptor, "digest", str, where), where)


def _well_formed(digest: str, where: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"a digest that is none ({digest[:40]!r})", where=where, mend=_AGAIN)
    return digest


def _algorithm(digest: str) -> str:
    return digest.partition(":")[0]


def _start(configuration: Fields, where: str) -> Start:
    """Of Entrypoint and Cmd together, as they are executed."""
    config = configuration.get("config") or {}
    if not isinstance(config, dict):
        raise InvalidInput("its configuration is no object", where=where, mend=_AGAIN)
    words = [word for key in ("Entrypoint", "Cmd") if config.get(key) for word in _fields(config, key, str, where)]
    environment = _fields(config, "Env", str, where) if config.get("Env") else []
    search = next((each.removeprefix("PATH=") for each in environment if each.startswith("PATH=")), "")
    folder = config.get("WorkingDir") or "/"
    return Start(tuple(words), str(folder), tuple(part for part in search.split(":") if part))


def _object(content: bytes, where: str) -> Fields:
    value = _json(content, where)
    if not isinstance(value, dict):
        raise InvalidInput("it is no JSON object", where=where, mend=_AGAIN)
    return value


def _json(content: bytes, where: str) -> Any:
    try:
        return strictjson.loads(content)
    except InvalidInput as error:
        raise InvalidInput("it is no JSON", where=where, mend=_AGAIN) from error


def _field(fields: Fields, name: str, kind: type[Kind], where: str) -> Kind:
    value = fields.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidInput(f"no {name} that can be used", where=where, mend=_AGAIN)
    return value


def _fields(fields: Fields, name: str, kind: type[Kind], where: str) -> list[Kind]:
    """A list of these."""
    values = _field(fields, name, list, where)
    if not all(isinstance(value, kind) for value in values):
        raise InvalidInput(f"{name} that cannot be used", where=where, mend=_AGAIN)
    return list(values)
