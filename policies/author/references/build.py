"""From a file system to reference values: which of its files are stated, and what may be executed."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.patterns import matches
from policies.author.references.images import Start
from policies.author.references.tree import File, Link, Special, Tree, within
from policies.model.references import FileReference, ReferenceSpec

_MOST_EXAMPLES = 20
_MOST_INTERPRETERS = 4
"""Scripts whose interpreter is a script, as the kernel has it (execve(2))."""
_LINK_MODE = 0o777
"""Of every symbolic link (symlink(7)), whatever an archive says."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_ENV_SEARCH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Wishes:
    """include: absolute paths whose files are stated; none for all. volatile: patterns of what is left out.

    executables: paths or patterns of what may be executed, besides what an image starts. owners: state uid and gid
    too.
    """

    include: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()
    executables: tuple[str, ...] = ()
    owners: bool = False


@dataclass(slots=True)
class Skipped:
    """What was left out for one reason. examples: the first few."""

    why: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What is worth knowing about a build. started: what an image executes by itself, as paths.

    proposed: class of files (as in a policy) -> patterns that somebody else's list suggests. Nothing of it is applied.
    notes: sentences.
    """

    skipped: dict[str, Skipped] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    proposed: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def skip(self, what: str, why: str, example: str) -> None:
        """what: a short word by which the reason is known."""
        skipped = self.skipped.setdefault(what, Skipped(why))
        skipped.count += 1
        if len(skipped.examples) < _MOST_EXAMPLES:
            skipped.examples.append(example)


def spec_of(tree: Tree, start: Start, wishes: Wishes, report: Report) -> ReferenceSpec:
    """Raises InvalidInput where something that is named is not there."""
    executables = _Executables(tree, start, report)
    executables.start()
    for wished in wishes.executables:
        executables.add(wished)
    if not executables.found:
        report.notes.append("Nothing may be executed by these: name programs by --executable.")
    files = dict(files_of(tree, wishes, report))
    if not files:
        report.notes.append("No file is stated: every file that a policy includes is a finding.")
    return ReferenceSpec(
        files=files,
        executables={path: (digest,) for path, digest in executables.found.items()},
    )


def files_of(tree: Tree, wishes: Wishes, report: Report) -> Iterable[tuple[str, FileReference]]:
    """Every file and link that is in scope, by path."""
    for path, node in tree.walk(wishes.include):
        if not wished(path, wishes, report):
            continue
        if not writable(path):
            report.skip("unnameable", "no document can state its name: where it is, it is a finding", path)
        elif isinstance(node, Special):
            report.skip(node.kind, "it has no content to be stated: where it is, it is a finding", path)
        else:
            yield path, _reference(node, wishes)


def wished(path: str, wishes: Wishes, report: Report) -> bool:
    """Is this path to be stated?"""
    if wishes.include and not any(within(path, root) for root in wishes.include):
        return False
    if matches(path, wishes.volatile):
        report.skip("volatile", "it matches --volatile", path)
        return False
    return True


def writable(path: str) -> bool:
    """Can a document state this path?"""
    return not _UNWRITABLE.search(path)


def _reference(node: File | Link, wishes: Wishes) -> FileReference:
    digest = hashlib.sha256(os.fsencode(node.target)).hexdigest() if isinstance(node, Link) else node.digest
    return FileReference.model_construct(
        digests=(digest,),
        mode=_LINK_MODE if isinstance(node, Link) else node.mode,
        uid=node.uid if wishes.owners else None,
        gid=node.gid if wishes.owners else None,
    )


class _Executables:
    """What may be executed: path -> digest. What a file needs in order to run, loader and interpreter, is with it."""

    def __init__(self, tree: Tree, start: Start, report: Report) -> None:
        self._tree, self._start, self._report = tree, start, report
        self.found: dict[str, Digest] = {}

    def start(self) -> None:
        """What an image starts: its first word, the first behind a `--`, and every other one that is a path."""
        words = self._start.words
        for number, word in enumerate(words):
            first = number == 0 or words[number - 1] == "--"
            if first or "/" in word:
                path = self._searched(word, self._start.search or _ENV_SEARCH)
                if path is not None:
                    self._report.started.append(path)
                    self._run(path)
                elif first:
                    self._report.notes.append(f"The image starts {word!r}, which is not in it.")

    def add(self, wished: str) -> None:
        """A path, whose links are followed, or a pattern of paths. Raises InvalidInput where nothing is there."""
        if "*" not in wished and "?" not in wished and wished.startswith("/"):
            if self._file(wished) is None:
                raise InvalidInput(
                    f"{wished} is no file that is there", where=self._tree.origin, mend="Check --executable."
                )
            self._run(wished)
            return
        count = len(self.found)
        literal = wished[: min((wished.find(each) for each in "*?" if each in wished), default=0)]
        for path, node in self._tree.walk([literal.rpartition("/")[0]] if literal.startswith("/") else ()):
            if isinstance(node, File) and node.program is not None and writable(path) and matches(path, (wished,)):
                self._run(path)
        if len(self.found) == count:
            self._report.notes.append(f"--executable {wished} adds nothing: no other file with an x bit matches.")

    def _run(self, path: str, deep: int = 0) -> None:
        """By its real path, as the kernel tells it; a loader by the name that the program asks for it by."""
        found = self._file(path)
        if found is None:
            self._report.notes.append(f"{path} is executed, and is no file that is there.")
            return
        real, file = found
        if real in self.found or not writable(real):
            return
        self.found[real] = file.digest
        program = file.program
        if program is None:
            return
        if program.hidden:
            self._report.notes.append(
                f"{real} keeps the name of its loader where it is not looked for: name it by --executable."
            )
        if program.loader:
            self._load(program.loader, real)
        if program.interpreter and deep < _MOST_INTERPRETERS:
            for each in self._interpreters(program.interpreter):
                self._run(each, deep + 1)

    def _load(self, loader: str, by: str) -> None:
        found = self._file(loader)
        if found is None:
            self._report.notes.append(f"{by} asks for the loader {loader}, which is no file that is there.")
        elif writable(loader):
            self.found[loader] = found[1].digest

    def _interpreters(self, words: tuple[str, ...]) -> Iterable[str]:
        """That of a script; behind `env` the program that it looks for as well."""
        yield words[0]
        if posixpath.basename(words[0]) == "env" and len(words) > 1:
            named = next((word for word in words[1].split() if not word.startswith("-") and "=" not in word), None)
            path = self._searched(named, self._start.search or _ENV_SEARCH) if named else None
            if path is not None:
                yield path

    def _searched(self, word: str, search: Sequence[str]) -> str | None:
        """As execvp(3) finds it."""
        if "/" in word:
            candidates = [posixpath.join(self._start.folder, word)]
        else:
            candidates = [posixpath.join(folder, word) for folder in search]
        for candidate in candidates:
            found = self._file(candidate)
            if found is not None and found[1].program is not None:
                return candidate
        return None

    def _file(self, path: str) -> tuple[str, File] | None:
        found = self._tree.resolve(path)
        return (found[0], found[1]) if found is not None and isinstance(found[1], File) else None
