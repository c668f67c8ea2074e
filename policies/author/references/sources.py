"""What there is to build from, told apart by itself, and one way to the reference values for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import strictjson
from attestation.errors import InvalidInput
from attestation.patterns import matches
from policies.author.references import debian, folder, images, keylime, layers, listed, sbom, tar
from policies.author.references.blobs import MOST_SMALL, ArchiveBlobs, Blobs, FolderBlobs
from policies.author.references.bounds import Budget
from policies.author.references.build import Report, Wishes, spec_of, wished
from policies.author.references.images import Start, Wanted
from policies.author.references.listed import Listed
from policies.author.references.streams import exactly, opened
from policies.author.references.tree import Parts, Tree
from policies.model.references import FileReference, ReferenceSpec


class Source(StrEnum):
    """What reference values are built from."""

    FOLDER = "dir"
    TAR = "tar"
    OCI = "oci"
    DOCKER = "docker"
    DEBIAN = "deb"
    CYCLONEDX = "cyclonedx"
    SPDX = "spdx"
    KEYLIME = "keylime"


@dataclass(frozen=True, slots=True)
class Terms:
    """How the sources are read. mounted: where the workload has them. index: of Debian packages. key: of a policy."""

    wishes: Wishes
    mounted: Parts = ()
    wanted: Wanted = field(default_factory=Wanted)
    index: debian.Index | None = None
    key: ec.EllipticCurvePublicKey | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """platform, digest: of an image."""

    source: Source
    spec: ReferenceSpec
    report: Report
    platform: str = ""
    digest: str = ""


def build(paths: Sequence[Path], source: Source | None, terms: Terms, budget: Budget) -> Built:
    """source: None to have it told apart. Raises InvalidInput for what cannot be read, or may be read as two things."""
    report = Report()
    try:
        source = source or told_apart(paths[0], budget)
        if len(paths) != 1 and source is not Source.DEBIAN:
            raise InvalidInput(f"{len(paths)} sources", where=source, mend="Name one, or several .deb files.")
        match source:
            case Source.OCI | Source.DOCKER:
                return _image(paths[0], source, terms, budget, report)
            case Source.CYCLONEDX | Source.SPDX | Source.KEYLIME:
                return Built(source, _listed(paths[0], source, terms, report), report)
            case _:
                tree = _tree(paths, source, terms, budget, report)
                return Built(source, spec_of(tree, Start(), terms.wishes, report), report)
    except OSError as error:
        raise InvalidInput(
            f"it cannot be read: {error.strerror}", where=str(error.filename or paths[0]), mend="Check the path."
        ) from error


def told_apart(path: Path, budget: Budget) -> Source:
    """By what is in it, not by its name. Raises InvalidInput, and OSError."""
    if path.is_dir():
        return Source.OCI if (path / images.LAYOUT).is_file() else Source.FOLDER
    with path.open("rb") as file:
        head = file.read(tar.BLOCK)
    if head.startswith(debian.MAGIC):
        return Source.DEBIAN
    if head.lstrip()[:1] == b"{":
        return _document(path)
    return _archive(path, budget)


def _document(path: Path) -> Source:
    document = listed.document(path)
    if document.get("bomFormat") == "CycloneDX":
        return Source.CYCLONEDX
    if "spdxVersion" in document:
        return Source.SPDX
    if "payloadType" in document or ("digests" in document and "meta" in document):
        return Source.KEYLIME
    raise InvalidInput(
        "it is no CycloneDX, SPDX 2 or Keylime document", where=str(path), mend="Say what it is by --from."
    )


def _archive(path: Path, budget: Budget) -> Source:
    """An image where the files are that every image has; else an archive like any other."""
    with path.open("rb") as file:
        stream = opened(file, budget, str(path))
        if not tar.looks_like(exactly(stream, tar.BLOCK)):
            raise InvalidInput(
                "it is no archive, image, package or document that is known here",
                where=str(path),
                mend="Say what it is by --from.",
            )
    known: set[str] = set()
    with path.open("rb") as file:
        for entry, content in tar.entries(opened(file, budget, str(path)), budget, str(path)):
            name = "/".join(entry.path)
            if name in (images.LAYOUT, "index.json") or (
                name == images.DOCKER and _lists_images(exactly(content, MOST_SMALL))
            ):
                known.add(name)
    if {images.LAYOUT, "index.json"} <= known:
        return Source.OCI
    return Source.DOCKER if images.DOCKER in known else Source.TAR


def _lists_images(content: bytes) -> bool:
    try:
        found = strictjson.loads(content)
    except InvalidInput:
        return False
    return (
        isinstance(found, list) and bool(found) and all(isinstance(each, dict) and "Layers" in each for each in found)
    )


def _image(path: Path, source: Source, terms: Terms, budget: Budget, report: Report) -> Built:
    blobs: Blobs = FolderBlobs(path, budget) if path.is_dir() else ArchiveBlobs(path, budget)
    read = images.layout if source is Source.OCI else images.saved
    image = read(blobs, terms.wanted, budget, str(path), terms.mounted)
    spec = spec_of(image.tree, image.start, terms.wishes, report)
    return Built(source, spec, report, image.platform, image.digest)


def _tree(paths: Sequence[Path], source: Source, terms: Terms, budget: Budget, report: Report) -> Tree:
    if source is Source.DEBIAN:
        return debian.installed(paths, terms.index, budget, report, terms.mounted)
    if source is Source.FOLDER:
        if not terms.mounted:
            report.notes.append("Its paths begin at /: say by --at in which folder the workload has it.")
        return folder.read(paths[0], budget, terms.mounted)
    with paths[0].open("rb") as file:
        stream = opened(file, budget, str(paths[0]))
        layer = layers.read(stream, budget, str(paths[0]), whiteouts=False)
    return layers.flattened([layer], str(paths[0]), terms.mounted)


def _listed(path: Path, source: Source, terms: Terms, report: Report) -> ReferenceSpec:
    document, origin = listed.document(path), str(path)
    if source is Source.KEYLIME:
        found = keylime.policy(document, origin, report, terms.mounted, terms.key)
    else:
        read = sbom.cyclonedx if source is Source.CYCLONEDX else sbom.spdx
        found = read(document, origin, report, terms.mounted)
    optional = source is Source.KEYLIME
    files = {
        name: FileReference.model_construct(digests=digests, optional=optional)
        for name, digests in sorted(found.files.items())
        if wished(name, terms.wishes, report)
    }
    return ReferenceSpec(files=files, executables=_executables(found, source, terms.wishes, report))


def _executables(found: Listed, source: Source, wishes: Wishes, report: Report) -> dict[str, tuple[str, ...]]:
    """What is wished for; of a Keylime policy everything, where nothing is."""
    if source is Source.KEYLIME and not wishes.executables:
        report.notes.append(
            "Everything that is listed may be executed, as Keylime means it: name less by --executable."
        )
        return dict(sorted(found.files.items()))
    chosen = {path: digests for path, digests in sorted(found.files.items()) if matches(path, wishes.executables)}
    if not chosen:
        report.notes.append("Nothing may be executed by these: name programs by --executable.")
    return chosen
