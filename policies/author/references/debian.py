"""Debian packages: what a .deb installs (deb(5)), held against a repository's index.

The index (`Packages`) states the SHA-256 of each .deb, and so, by what is in the .deb, of each file. Who signed the
index is for apt to check (`InRelease`), and not checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InvalidInput
from policies.author.references import layers, tar
from policies.author.references.bounds import Budget
from policies.author.references.build import Report
from policies.author.references.layers import Layer
from policies.author.references.streams import Hashed, Slice, Stream, Told, chunks, exactly, opened, unpacked
from policies.author.references.tree import Folder, Link, Parts, Tree

MAGIC = b"!<arch>\n"
_HEADER = 60
_MOST_CONTROL = 1 << 20
_MOST_LINE = 1 << 16
_AGAIN = "Download the package again."
_SCRIPTS = ("preinst", "postinst")


@dataclass(frozen=True, slots=True)
class Package:
    """One .deb. digest: of the file. conffiles: what an administrator may change. scripts: run when it is installed."""

    name: str
    version: str
    architecture: str
    digest: str
    layer: Layer
    conffiles: tuple[str, ...]
    scripts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture}"


Index = Mapping[str, frozenset[str]]
"""`name version architecture` -> SHA-256 of the .deb."""


def installed(paths: Sequence[Path], index: Index | None, budget: Budget, report: Report, mounted: Parts = ()) -> Tree:
    """What these packages install, together. Raises InvalidInput, also where two have the same path.

    index: what each of them must be listed in; None where nobody says what they are.
    """
    tree, owner = Tree(", ".join(map(str, paths))), dict[Parts, Package]()
    tree.put(mounted, Folder())
    packages = [_read(path, budget) for path in paths]
    for package in packages:
        if index is not None:
            _listed(package, index)
        _lay(tree, package, mounted, owner)
        if package.conffiles:
            report.proposed.setdefault("configuration", []).extend(package.conffiles)
    scripted = [package.name for package in packages if package.scripts]
    if scripted:
        report.notes.append(f"What scripts make when these are installed is not stated: {', '.join(scripted)}.")
    if index is None:
        report.notes.append("Where the packages come from was not checked: name a repository's index by --packages.")
    return tree


def _lay(tree: Tree, package: Package, mounted: Parts, owner: dict[Parts, Package]) -> None:
    origin = package.layer.origin
    if package.layer.linked:
        linked = "/".join(next(iter(package.layer.linked)))
        raise InvalidInput(f"/{linked} is a hard link to what is not in it", where=origin, mend=_AGAIN)
    for path, node in sorted(package.layer.nodes.items(), key=lambda each: len(each[0])):
        real = _real(tree, (*mounted, *path))
        known = tree.at(real)
        if isinstance(node, Folder) and isinstance(known, Link | Folder):
            continue
        if known is not None and known != node:
            raise InvalidInput(
                f"both {owner.get(real, 'another package')} and {package} have /{'/'.join(real)}",
                where=origin,
                mend="Leave one of them out, or build from a root on which both are installed.",
            )
        owner[real] = package
        tree.put(real, Folder() if isinstance(node, Folder) else node)


def _real(tree: Tree, path: Parts) -> Parts:
    """As dpkg does it: where a folder is a link to another one, into that one."""
    around = tree.resolve("/" + "/".join(path[:-1])) if path else None
    return path if around is None else (*(name for name in around[0].split("/") if name), path[-1])


def _read(path: Path, budget: Budget) -> Package:
    where = str(path)
    with path.open("rb") as file:
        whole = Hashed(Told(file, budget), "sha256")
        if exactly(whole, len(MAGIC)) != MAGIC:
            raise InvalidInput("it is no Debian package", where=where, mend=_AGAIN)
        members = _members(whole, where)
        name, content = next(members, ("", whole))
        if name != "debian-binary" or not exactly(content, 16).startswith(b"2."):
            raise InvalidInput("it is no Debian package of version 2", where=where, mend=_AGAIN)
        control: dict[str, bytes] = {}
        layer: Layer | None = None
        for name, content in members:
            if name.startswith("control.tar") and not control and layer is None:
                control = _control(unpacked(content, budget, where), budget, where)
            elif name.startswith("data.tar") and layer is None:
                layer = layers.read(unpacked(content, budget, where), budget, where, whiteouts=False)
            elif not name.startswith("_"):
                raise InvalidInput(f"a part of it that is not known, {name!r}", where=where, mend=_AGAIN)
        if layer is None or "control" not in control:
            raise InvalidInput("it has no control.tar or no data.tar", where=where, mend=_AGAIN)
        fields = next(_paragraphs(lines([control["control"]], where)), {})
        return Package(
            fields.get("package", ""),
            fields.get("version", ""),
            fields.get("architecture", ""),
            whole.digest.removeprefix("sha256:"),
            layer,
            tuple(_conffiles(control.get("conffiles", b""))),
            tuple(name for name in _SCRIPTS if name in control),
        )


def _members(stream: Stream, where: str) -> Iterator[tuple[str, Stream]]:
    """Of an ar archive, as deb(5) has it: names of at most 15 characters."""
    while header := exactly(stream, _HEADER):
        name, size = header[:16].rstrip(b" ").removesuffix(b"/"), header[48:58].rstrip(b" ")
        if len(header) != _HEADER or header[58:] != b"`\n" or not size.isdigit() or not name.isascii():
            raise InvalidInput("a part of it without a proper header", where=where, mend=_AGAIN)
        content = Slice(stream, int(size), where)
        yield name.decode("ascii"), content
        for _ in chunks(content):
            pass
        if int(size) % 2:
            exactly(stream, 1)


def _control(stream: Stream, budget: Budget, where: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry, content in tar.entries(stream, budget, where):
        if entry.kind is tar.Kind.FILE and len(entry.path) == 1:
            found[entry.path[0]] = exactly(content, _MOST_CONTROL)
    return found


def _conffiles(content: bytes) -> Iterator[str]:
    """A path a line; behind a flag such as `remove-on-upgrade` it is none that is installed (deb-conffiles(5))."""
    for line in content.decode("utf-8", "replace").splitlines():
        if line.startswith("/"):
            yield line.strip()


# --- a repository's index ---


def index(path: Path, budget: Budget) -> Index:
    """The `Packages` file of a repository, packed or not. Raises InvalidInput."""
    found: dict[str, set[str]] = {}
    with path.open("rb") as file:
        for fields in _paragraphs(lines(chunks(opened(file, budget, str(path))), str(path))):
            name = " ".join(fields.get(key, "") for key in ("package", "version", "architecture"))
            found.setdefault(name, set()).add(fields.get("sha256", ""))
    if not any(digests - {""} for digests in found.values()):
        raise InvalidInput(
            "no package with a SHA-256 is listed there",
            where=str(path),
            mend="Name a repository's `Packages`, plain or packed with gzip, bzip2, xz or zstd.",
        )
    return {name: frozenset(digests - {""}) for name, digests in found.items()}


def _listed(package: Package, index: Index) -> None:
    known = index.get(str(package), frozenset())
    if package.digest not in known:
        why = "is not what the repository's index states" if known else "is not in the repository's index"
        raise InvalidInput(f"{package} (sha256:{package.digest[:12]}) {why}", where=package.layer.origin, mend=_AGAIN)


def lines(parts: Iterable[bytes], where: str) -> Iterator[str]:
    """Of a text in parts. Raises InvalidInput for a line that is none."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)
        if len(rest) > _MOST_LINE:
            raise InvalidInput(f"a line of more than {_MOST_LINE} bytes", where=where, mend=_AGAIN)
    if rest:
        yield rest.decode("utf-8", "replace")


def _paragraphs(text: Iterator[str]) -> Iterator[dict[str, str]]:
    """Fields by their names in small letters (deb822(5)); what goes on over several lines is none that we need."""
    fields: dict[str, str] = {}
    for line in text:
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t#":
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
    if fields:
        yield fields
