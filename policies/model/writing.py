"""Documents as YAML, by hand: a YAML library takes seconds for some thousand files, and a line for each reads best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from attestation.quantities import instant_text
from attestation.wording import shown
from policies.model.metadata import Metadata
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues, ReferenceVersion

Notes = Mapping[tuple[str, ...], str]
"""By place: `("executables", path)`, `("files", path)`, `("syscalls", set)`, `("syscalls", set, call)`."""
_NONE: Notes = MappingProxyType({})


def reference_values(document: ReferenceValues, notes: Notes = _NONE) -> str:
    """One document, that reads as what is given. Each path has a line of its own, in the order of paths.

    notes: what is said beside an entry, as a comment; calls that have some stand on a line of their own each.
    """
    return "".join(f"{line}\n" for line in _lines(document, notes))


def quoted(text: str) -> str:
    """As a double-quoted scalar (YAML 1.2 section 7.3.1), which can hold any Unicode text."""
    return f'"{"".join(_escaped(each) for each in text)}"'


def digests(known: Iterable[str]) -> str:
    """With its prefix a digest is text to every parser, even one that is all digits."""
    return f"[{', '.join(f'sha256:{each}' for each in known)}]"


def metadata(meta: Metadata) -> str:
    """In one line."""
    fields = [f"name: {quoted(meta.name)}"]
    if meta.namespace != "default":
        fields.append(f"namespace: {quoted(meta.namespace)}")
    if meta.labels:
        labels = ", ".join(f"{quoted(key)}: {quoted(value)}" for key, value in meta.labels.items())
        fields.append(f"labels: {{{labels}}}")
    return f"{{{', '.join(fields)}}}"


def comment(text: str) -> str:
    """Behind an entry, or on a line of its own: whatever the text is, it ends with the line."""
    return f"# {shown(text)}"


def _lines(document: ReferenceValues, notes: Notes) -> Iterator[str]:
    yield f"apiVersion: {document.api_version}"
    yield f"kind: {document.kind}"
    yield f"metadata: {metadata(document.metadata)}"
    spec = list(_spec(document.spec, notes))
    yield "spec:" if spec else "spec: {}"
    yield from (f"  {line}" for line in spec)


def _spec(spec: ReferenceSpec, notes: Notes) -> Iterator[str]:
    if spec.inherits:
        yield f"inherits: [{', '.join(map(quoted, spec.inherits))}]"
    if spec.expires is not None:
        yield f"expires: {quoted(instant_text(spec.expires))}"
    if spec.without:
        yield "without:"
        yield from (f"- {quoted(path)}" for path in spec.without)
    yield from _files(spec, notes)
    yield from _section("proxies", spec.proxies)
    if spec.syscalls:
        yield "syscalls:"
        yield from (f"  {line}" for label, each in spec.syscalls.items() for line in _calls(label, each, notes))
    if spec.versions:
        yield "versions:"
        for label, version in spec.versions.items():
            lines = list(_files(version, _NONE))
            yield f"  {quoted(label)}:" + ("" if lines else " {}")
            yield from (f"    {line}" for line in lines)


def _files(stated: ReferenceSpec | ReferenceVersion, notes: Notes) -> Iterator[str]:
    if stated.files:
        yield "files:"
        for path, each in sorted(stated.files.items()):
            yield f"  {quoted(path)}: {_file(each)}{_noted(notes, 'files', path)}"
    yield from _section("executables", stated.executables, notes)


def _section(name: str, known: Mapping[str, tuple[str, ...]], notes: Notes = _NONE) -> Iterator[str]:
    if known:
        yield f"{name}:"
        yield from (
            f"  {quoted(key)}: {digests(each)}{_noted(notes, name, key)}" for key, each in sorted(known.items())
        )


def _calls(label: str, names: tuple[str, ...], notes: Notes) -> Iterator[str]:
    why = notes.get(("syscalls", label), "")
    if why:
        yield comment(why)
    if not any(("syscalls", label, each) in notes for each in names):
        yield f"{quoted(label)}: [{', '.join(map(quoted, names))}]"
        return
    yield f"{quoted(label)}:"
    yield from (f"- {quoted(each)}{_noted(notes, 'syscalls', label, each)}" for each in names)


def _noted(notes: Notes, *place: str) -> str:
    return f"  {comment(notes[place])}" if place in notes else ""


def _file(reference: FileReference) -> str:
    fields = [f"digests: {digests(reference.digests)}"]
    if reference.mode is not None:
        fields.append(f'mode: "{reference.mode:04o}"')
    if reference.uid is not None:
        fields.append(f"uid: {reference.uid}")
    if reference.gid is not None:
        fields.append(f"gid: {reference.gid}")
    if reference.optional:
        fields.append("optional: true")
    if reference.capabilities:
        fields.append(f'capabilities: "{reference.capabilities}"')
    return f"{{{', '.join(fields)}}}"


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
