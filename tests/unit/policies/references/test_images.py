"""Container images on disk: the one that is meant, whole, and by the digests that it names."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attestation.errors import InvalidInput
from policies.author.references import images
from policies.author.references.blobs import ArchiveBlobs, Blobs, FolderBlobs
from policies.author.references.images import Image, Start, Wanted
from policies.author.references.sources import Source, told_apart
from tests.unit.policies.references.packing import (
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Layout,
    Put,
    budget,
    configured,
    digest,
    docker_saved,
    packed,
)
from tests.unit.policies.references.shipped import zstd
from tests.unit.policies.references.test_layers import contents

BASE = packed(Put("bin/sh", b"shell", mode=0o755), Put("etc/old", b"1"))
APP = packed(Put("srv/app/main", b"main", mode=0o755), Put("etc/.wh.old", b""))
EXPECTED = {"/bin/sh": (digest(b"shell"), 0o755), "/srv/app/main": (digest(b"main"), 0o755)}


def laid_out(path: Path, wanted: Wanted = Wanted()) -> Image:  # noqa: B008 - it is frozen
    blobs: Blobs = FolderBlobs(path, budget()) if path.is_dir() else ArchiveBlobs(path, budget())
    return images.layout(blobs, wanted, budget(), str(path))


def saved(path: Path, wanted: Wanted = Wanted()) -> Image:  # noqa: B008 - the same
    return images.saved(ArchiveBlobs(path, budget()), wanted, budget(), str(path))


def fault(path: Path, wanted: Wanted = Wanted(), read: Callable[..., Image] = laid_out) -> str:  # noqa: B008 - the same
    with pytest.raises(InvalidInput) as raised:
        read(path, wanted)
    return raised.value.sentence


# --- an OCI image layout ---


@pytest.mark.parametrize("archived", [False, True])
def test_a_layout_is_read_as_a_folder_and_as_an_archive(tmp_path: Path, archived: bool) -> None:
    made = Layout().add(BASE, APP)
    path = made.archive(tmp_path / "image.tar") if archived else made.written(tmp_path)
    assert told_apart(path, budget()) is Source.OCI
    image = laid_out(path)
    assert contents(image.tree) == EXPECTED
    assert (image.platform, image.digest) == ("linux/amd64", made.images[0]["digest"])


def test_an_archive_may_be_packed_itself(tmp_path: Path) -> None:
    plain = Layout().add(BASE, APP).archive(tmp_path / "image.tar")
    (tmp_path / "image.tgz").write_bytes(gzip.compress(plain.read_bytes()))
    assert told_apart(tmp_path / "image.tgz", budget()) is Source.OCI
    assert contents(laid_out(tmp_path / "image.tgz").tree) == EXPECTED


@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        ("application/vnd.oci.image.layer.v1.tar", lambda layer: layer),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", gzip.compress),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress),
    ],
)
def test_layers_are_unpacked_however_they_are_packed(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]) -> None:
    made = Layout()
    manifest = {
        "config": made.document(configured([BASE]), "application/vnd.docker.container.image.v1+json"),
        "layers": [made.blob(pack(BASE), kind)],
    }
    made.images.append(made.document(manifest, "application/vnd.docker.distribution.manifest.v2+json"))
    assert "/bin/sh" in contents(laid_out(made.written(tmp_path)).tree)


def test_what_a_container_starts_is_known(tmp_path: Path) -> None:
    config = {"Entrypoint": ["/init", "--"], "Cmd": ["serve"], "Env": ["A=b", "PATH=/opt:/bin"], "WorkingDir": "/srv"}
    image = laid_out(Layout().add(BASE, config=config).written(tmp_path))
    assert image.start == Start(("/init", "--", "serve"), "/srv", ("/opt", "/bin"))
    nothing = laid_out(Layout().add(BASE, config={"Cmd": None}).written(tmp_path / "other"))
    assert nothing.start == Start()


def several() -> Layout:
    """Two platforms under one tag, an attestation beside them, and another tag."""
    made = Layout()
    arm = made.image(APP, platform="linux/arm64")
    attested = made.image(BASE) | {"platform": {"os": "unknown", "architecture": "unknown"}}
    index = made.document({"schemaVersion": 2, "manifests": [made.image(BASE), arm, attested]}, OCI_INDEX)
    made.images.append(index | {"annotations": {REF_NAME: "1.5"}})
    made.images.append(made.image(BASE, APP) | {"annotations": {REF_NAME: "1.6"}})
    return made


def test_of_several_images_the_one_that_is_named_is_read(tmp_path: Path) -> None:
    path = several().written(tmp_path)
    assert contents(laid_out(path, Wanted("linux/arm64", "1.5")).tree).keys() == {"/srv/app/main"}
    assert contents(laid_out(path, Wanted("linux/amd64", "1.5")).tree).keys() == {"/bin/sh", "/etc/old"}
    assert contents(laid_out(path, Wanted("", "1.6")).tree) == EXPECTED


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({}, "3 images that would do"),
        ({"name": "1.5"}, "2 images that would do; there are linux/amd64, linux/arm64"),
        ({"name": "2.0"}, "0 images that would do"),
        ({"platform": "linux/s390x"}, "0 images that would do"),
        ({"platform": "linux/arm"}, "0 images that would do"),
    ],
)
def test_where_none_or_several_would_do_they_are_named(tmp_path: Path, wanted: dict[str, str], words: str) -> None:
    said = fault(several().written(tmp_path), Wanted(**wanted))
    assert words in said
    assert "--platform linux/amd64 and --ref NAME" in said


def test_an_image_that_states_its_platform_only_inside_is_held_to_it(tmp_path: Path) -> None:
    made = Layout()
    descriptor = made.image(BASE, platform="linux/arm64/v8")
    del descriptor["platform"]
    made.images.append(descriptor)
    path = made.written(tmp_path)
    assert laid_out(path, Wanted("linux/arm64")).platform == "linux/arm64"
    assert "for linux/arm64, not for linux/amd64" in fault(path, Wanted("linux/amd64"))


# --- what is not as it is named ---


def rewritten(made: Layout, change: Callable[[dict[str, Any]], None]) -> Layout:
    """The same image with another manifest, whose digest is right."""
    name = f"blobs/{made.images[0]['digest'].replace(':', '/')}"
    manifest = json.loads(made.files[name])
    change(manifest)
    made.images[0] = made.document(manifest, OCI_MANIFEST)
    return made


def blob_of(made: Layout, kind: str) -> str:
    """The name of the image's manifest, configuration or first layer."""
    name = f"blobs/{made.images[0]['digest'].replace(':', '/')}"
    manifest = json.loads(made.files[name])
    descriptor = {"manifest": made.images[0], "config": manifest["config"], "layer": manifest["layers"][0]}[kind]
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


@pytest.mark.parametrize("kind", ["manifest", "config", "layer"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_blob_that_is_not_what_its_name_says_is_refused(tmp_path: Path, kind: str, archived: bool) -> None:
    made = Layout().add(BASE, APP)
    name = blob_of(made, kind)
    content = made.files[name]
    other = (
        gzip.compress(APP, mtime=0)
        if kind == "layer"
        else content.replace(b"linux", b"linuy").replace(b'": 2', b'": 3')
    )
    assert other != content
    made.files[name] = other
    said = fault(made.archive(tmp_path / "x.tar") if archived else made.written(tmp_path))
    assert f"it is sha256:{digest(other)}" in said
    assert name in said


@pytest.mark.parametrize("kind", ["manifest", "config", "layer"])
def test_a_blob_of_another_size_than_is_stated_is_refused(tmp_path: Path, kind: str) -> None:
    made = Layout().add(BASE)
    if kind == "manifest":
        made.images[0]["size"] += 1
    else:
        rewritten(
            made, lambda manifest: (manifest["config"] if kind == "config" else manifest["layers"][0]).update(size=7)
        )
    assert f"it is sha256:{blob_of(made, kind).rpartition('/')[2]}" in fault(made.written(tmp_path))


def test_a_layer_whose_content_is_another_than_the_configuration_names_is_refused(tmp_path: Path) -> None:
    made = Layout().add(BASE)
    rewritten(made, lambda manifest: manifest["layers"].__setitem__(0, made.blob(gzip.compress(APP), OCI_LAYER)))
    assert f"its content is sha256:{digest(APP)}, not sha256:{digest(BASE)}" in fault(made.written(tmp_path))


def test_bytes_behind_the_archive_in_a_layer_count_to_its_content(tmp_path: Path) -> None:
    made = Layout().add(BASE)
    longer = BASE + bytes(512)
    rewritten(made, lambda manifest: manifest["layers"].__setitem__(0, made.blob(gzip.compress(longer), OCI_LAYER)))
    assert f"its content is sha256:{digest(longer)}" in fault(made.written(tmp_path))


@pytest.mark.parametrize("kind", ["manifest", "config", "layer"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_blob_that_is_missing_is_named(tmp_path: Path, kind: str, archived: bool) -> None:
    made = Layout().add(BASE)
    name = blob_of(made, kind)
    del made.files[name]
    assert f"{name} cannot be read" in fault(made.archive(tmp_path / "x.tar") if archived else made.written(tmp_path))


def test_no_link_in_a_layout_is_followed(tmp_path: Path) -> None:
    path = Layout().add(BASE).written(tmp_path / "image")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("index.json", "blobs"):
        (path / name).rename(outside / name)
        (path / name).symlink_to(outside / name)
        assert "cannot be read" in fault(path)
        (path / name).unlink()
        (outside / name).rename(path / name)


def test_a_pipe_in_the_place_of_a_blob_keeps_nobody_waiting(tmp_path: Path) -> None:
    made = Layout().add(BASE)
    path = made.written(tmp_path)
    name = blob_of(made, "layer")
    (path / name).unlink()
    os.mkfifo(path / name)
    assert "it is no file" in fault(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("oci-layout", b"{}", "an image layout of version None"),
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', "an image layout of version '2.0.0'"),
        ("oci-layout", b"[]", "no JSON object"),
        ("index.json", b"{", "no JSON"),
        ("index.json", b'{"manifests": 5}', "no manifests that can be used"),
        ("index.json", b'{"manifests": [5]}', "manifests that cannot be used"),
        ("index.json", b'{"manifests": []}', "0 images"),
        ("index.json", b"[" * 5000, "no JSON"),
        ("index.json", b'{"manifests": [], "manifests": []}', "no JSON"),
        ("index.json", b" " * (5 << 20), "more than 4194304 bytes"),
        (
            "index.json",
            b'{"manifests": [{"mediaType": "%s", "digest": "sha256:../../x", "size": 1}]}' % OCI_MANIFEST.encode(),
            "a digest that is none",
        ),
        (
            "index.json",
            b'{"manifests": [{"mediaType": "%s", "digest": 7, "size": 1}]}' % OCI_MANIFEST.encode(),
            "no digest",
        ),
        ("index.json", b'{"manifests": [{"mediaType": "x"}]}', "0 images"),
    ],
)
def test_what_is_no_layout_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = Layout().add(BASE).written(tmp_path)
    (path / name).write_bytes(content)
    assert words in fault(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda manifest: manifest["layers"].append(manifest["layers"][0]),
            "2 layers, where the image's configuration names 1",
        ),
        (lambda manifest: manifest["layers"].clear(), "0 layers, where"),
        (lambda manifest: manifest.update(layers={}), "no layers that can be used"),
        (lambda manifest: manifest.pop("config"), "no config"),
        (
            lambda manifest: manifest["layers"][0].update(mediaType="application/vnd.cncf.helm.chart"),
            "a layer of the type",
        ),
        (lambda manifest: manifest["layers"][0].update(size=True), "no size"),
        (lambda manifest: manifest["layers"][0].update(digest="md5:" + "0" * 32), "a digest that is none"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    assert words in fault(rewritten(Layout().add(BASE), change).written(tmp_path))


def test_indexes_within_indexes_are_followed_so_far_and_no_further(tmp_path: Path) -> None:
    for depth, words in ((3, ""), (9, "0 images")):
        made = Layout()
        descriptor = made.image(BASE)
        for _ in range(depth):
            descriptor = made.document({"manifests": [descriptor]}, OCI_INDEX)
        made.images.append(descriptor)
        path = made.written(tmp_path / str(depth))
        assert words in (fault(path) if words else str(contents(laid_out(path).tree)))


class Counted(FolderBlobs):
    """Knows how many documents were read."""

    read = 0

    def small(self, name: str) -> bytes:
        self.read += 1
        return super().small(name)


def test_an_index_that_is_named_again_and_again_is_read_once(tmp_path: Path) -> None:
    made = Layout()
    descriptor = made.image(BASE)
    for _ in range(3):
        descriptor = made.document({"manifests": [descriptor] * 20}, OCI_INDEX)
    made.images.append(descriptor)
    blobs = Counted(made.written(tmp_path), budget())
    assert contents(images.layout(blobs, Wanted(), budget(), str(tmp_path)).tree) == contents(laid_out(tmp_path).tree)
    assert blobs.read == len({"oci-layout", "index.json", "manifest", "configuration"}) + 3


def test_an_index_whose_size_is_misstated_once_is_refused_though_it_was_read_before(tmp_path: Path) -> None:
    made = Layout()
    inside = made.document({"manifests": [made.image(BASE)]}, OCI_INDEX)
    made.images += [inside, inside | {"size": 1}]
    assert "bytes" in fault(made.written(tmp_path))


def test_descriptors_of_all_indexes_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Layout()
    inside = made.document({"manifests": [made.image(BASE)] * 4}, OCI_INDEX)
    made.images += [inside, inside]
    path = made.written(tmp_path)
    monkeypatch.setattr(images, "_MOST_DESCRIPTORS", 6)
    assert laid_out(path).digest
    monkeypatch.setattr(images, "_MOST_DESCRIPTORS", 5)
    assert "more than 5 manifests and indexes" in fault(path)


def test_an_archive_with_a_blob_twice_is_refused(tmp_path: Path) -> None:
    made = Layout().add(BASE)
    made.archive(tmp_path / "x.tar")
    twice = packed(*(Put(name, content) for name, content in [*made.files.items(), ("index.json", b"{}")]))
    (tmp_path / "x.tar").write_bytes(twice)
    assert "index.json cannot be read: it stands twice" in fault(tmp_path / "x.tar")


# --- what docker save writes ---

LAYERS = {"one/layer.tar": BASE, "two/layer.tar": APP}


def docker(path: Path, *puts: Put) -> Path:
    path.write_bytes(packed(*puts))
    return path


def with_layer(put: Put) -> list[Put]:
    """An image with this in the place of its one layer."""
    return [put if each.path == put.path else each for each in docker_saved({"one": BASE})]


def test_what_docker_saved_is_read(tmp_path: Path) -> None:
    path = docker(tmp_path / "web.tar", *docker_saved(LAYERS, {"Cmd": ["/srv/app/main"]}))
    assert told_apart(path, budget()) is Source.DOCKER
    image = saved(path, Wanted("linux/amd64", "web:1.5"))
    assert contents(image.tree) == EXPECTED
    assert image.start.words == ("/srv/app/main",)


def test_layers_that_two_images_share_are_linked(tmp_path: Path) -> None:
    puts = docker_saved({**LAYERS, "three/layer.tar": BASE})
    linked = [Put(put.path, link="../one/layer.tar") if put.path == "three/layer.tar" else put for put in puts]
    assert contents(saved(docker(tmp_path / "a.tar", *linked)).tree).keys() == {*EXPECTED, "/etc/old"}


@pytest.mark.parametrize(
    ("puts", "wanted", "words"),
    [
        (docker_saved(LAYERS), {"name": "web:2"}, "0 images that would do; there are web:1.5"),
        (docker_saved(LAYERS), {"platform": "linux/arm64"}, "for linux/amd64, not for linux/arm64"),
        (docker_saved(LAYERS)[:2] + docker_saved(LAYERS)[3:], {}, "two/layer.tar cannot be read"),
        (docker_saved(LAYERS, listed=b"{}"), {}, "no list of images"),
        (docker_saved(LAYERS, listed=b"[5]"), {}, "no list of images"),
        (docker_saved(LAYERS, listed=b"[]"), {}, "0 images"),
        (docker_saved(LAYERS, listed=b'[{"RepoTags": 5}]'), {"name": "x"}, "no RepoTags"),
        (docker_saved(LAYERS, listed=b'[{"Config": "../x", "Layers": []}]'), {}, "../x cannot be read"),
        ([*docker_saved(LAYERS)[1:], Put("x", link="y")], {}, "cannot be read"),
        (with_layer(Put("one", APP)), {}, "its content is"),
        (with_layer(Put("one", link="../../etc/passwd")), {}, "not in the archive"),
        (with_layer(Put("one", link="one")), {}, "not in the archive"),
    ],
)
def test_what_docker_would_not_have_saved_is_refused(
    tmp_path: Path, puts: list[Put], wanted: dict[str, str], words: str
) -> None:
    assert words in fault(docker(tmp_path / "x.tar", *puts), Wanted(**wanted), saved)
