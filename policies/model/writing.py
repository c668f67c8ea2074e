"""Documents as YAML, by hand: a YAML library takes seconds for some thousand files, and a line for each reads best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attestation.quantities import instant_text
from policies.model.metadata import Metadata
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues, ReferenceVersion


def reference_values(document: ReferenceValues) -> str:
    """One document, that reads as what is given. Each path has a line of its own, in the order of paths."""
    return "".join(f"{line}\n" for line in _lines(document))


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


def _lines(document: ReferenceValues) -> Iterator[str]:
    yield f"apiVersion: {document.api_version}"
    yield f"kind: {document.kind}"
    yield f"metadata: {metadata(document.metadata)}"
    spec = list(_spec(document.spec))
    yield "spec:" if spec else "spec: {}"
    yield from (f"  {line}" for line in spec)


def _spec(spec: ReferenceSpec) -> Iterator[str]:
    if spec.inherits:
        yield f"inherits: [{', '.join(map(quoted, spec.inherits))}]"
    if spec.expires is not None:
        yield f"expires: {quoted(instant_text(spec.expires))}"
    if spec.without:
        yield "without:"
        yield from (f"- {quoted(path)}" for path in spec.without)
    yield from _files(spec)
    yield from _section("proxies", spec.proxies)
    if spec.syscalls:
        yield "syscalls:"
        yield from (f"  {quoted(label)}: [{', '.join(map(quoted, each))}]" for label, each in spec.syscalls.items())
    if spec.versions:
        yield "versions:"
        for label, version in spec.versions.items():
            lines = list(_files(version))
            yield f"  {quoted(label)}:" + ("" if lines else " {}")
            yield from (f"    {line}" for line in lines)


def _files(stated: ReferenceSpec | ReferenceVersion) -> Iterator[str]:
    if stated.files:
        yield "files:"
        yield from (f"  {quoted(path)}: {_file(each)}" for path, each in sorted(stated.files.items()))
    yield from _section("executables", stated.executables)


def _section(name: str, known: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    if known:
        yield f"{name}:"
        yield from (f"  {quoted(key)}: {digests(each)}" for key, each in sorted(known.items()))


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
