"""What policy exempts from being read although it may run: which nothing tells of when it does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from policies.author.reach import ruling, stated_at
from policies.author.remarks import Check, Remark
from policies.model.classes import DATA, FileClass, class_of
from policies.model.load import PolicySet
from policies.model.merge import Merged
from policies.model.policy import FileRules
from policies.model.references import ReferenceValues

_ANY = "\N{SNOWMAN}"
"""A name that no pattern means by name."""

_RUNS = {
    "byte code": f"__pycache__/{_ANY}.cpython-311.pyc",
    "libraries": f"{_ANY}.so",
    "modules": f"{_ANY}.py",
    "scripts": f"{_ANY}.js",
    "archives": f"{_ANY}.jar",
}
"""What a program loads by itself: nothing is executed, so that nobody but who reads the file sees it."""


def code_exempt(found: PolicySet, _: object) -> Iterator[Remark]:
    """Code by its name in the midst of what is judged. That a folder as a whole is exempt, its author knows."""
    for merged in ruling(found):
        files = merged.policy.spec.files
        for root in files.include:
            for what, name in _RUNS.items():
                exempt = _exempt(root.rstrip("/"), name, files)
                if exempt is not None:
                    yield _told(merged, root, what, exempt)


def _exempt(root: str, name: str, files: FileRules) -> FileClass | None:
    """The class that such a name has in a folder of which something else is code."""
    for folder in (root, f"{root}/{_ANY}"):
        file_class = class_of(f"{folder}/{name}", files)
        if file_class in DATA and class_of(f"{folder}/{_ANY}", files) is FileClass.CODE:
            return file_class
    return None


def _told(merged: Merged, root: str, what: str, exempt: FileClass) -> Remark:
    return Remark.warning(
        Check.CODE_EXEMPT,
        stated_at(merged, f"files.{exempt}"),
        f"{what} below {root} are of the class {exempt}: a program that loads them runs what nobody has read",
        "docs/hardening.md says what to do instead, and when it does no harm.",
    )


def never_executed(found: PolicySet, _: object) -> Iterator[Remark]:
    """Executables that are referenced where no policy lets anything be executed."""
    rules_of: dict[str, list[FileRules]] = defaultdict(list)
    for governing in found.governing.values():
        rules_of[governing.references.metadata.qualified].append(governing.policy.spec.files)
    for document, origin in found.documents:
        rules = rules_of[document.metadata.qualified] if isinstance(document, ReferenceValues) else []
        if not isinstance(document, ReferenceValues) or not rules:
            continue
        for path in document.spec.executables:
            if all(class_of(path, each) in DATA for each in rules):
                yield Remark.warning(
                    Check.UNREACHABLE,
                    origin.at(f"ReferenceValues/{document.metadata.qualified}: spec.executables[{path}]"),
                    f"{path} is of the class {class_of(path, rules[0])}: to execute it is tamper, referenced or not",
                    "Take its path out of the patterns, so that it is code, or take the reference out.",
                )
