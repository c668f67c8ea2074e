"""What would have to stand in policy or reference values for a finding to be none: the exact YAML to add there.

Each piece names its document and gives only what changes: maps are added to, everything else replaces what stands
there. It is text put together by hand, because it is made on the way from a fact to the closing: a YAML library
would cost more than the judgement. Empty where nothing in policy could allow the finding.
"""

from __future__ import annotations

from collections.abc import Sequence

from attestation.calls import Watching
from attestation.coverage import Guarantee
from attestation.detectors.alerts import Alert, Detector
from attestation.digests import Digest
from attestation.layers import Layer
from attestation.manifest import FILE, LINK, NO_DIGEST, Entry
from attestation.memory import Code, CodeKind
from attestation.patterns import matches
from policies.model.classes import DATA
from policies.model.detectors import AlertRule
from policies.model.memory import CodeAllowance, amount_text
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, Demand
from policies.model.references import FileReference, ReferenceValues
from policies.model.writing import digests, quoted

MOST_DIGESTS = 8
"""Digests of one file or executable that are named beside the new one; of more, the latest."""


def file(entry: Entry, references: ReferenceValues, capabilities: str = "") -> str:
    """This path, as it is now. capabilities: those of the file, where that is known."""
    if entry.kind not in (FILE, LINK) or entry.digest == NO_DIGEST:
        return ""
    known = references.spec.files.get(entry.path)
    fields = [
        f"digests: {_digests(known.digests if known else (), entry.digest)}",
        *_attributes(entry, known, capabilities),
    ]
    return _references(references, "files", entry.path, f"{{{', '.join(fields)}}}")


def file_capabilities(entry: Entry, references: ReferenceValues) -> str:
    """A referenced file with the capabilities that it has now. All else of it stays as it is referenced."""
    known = references.spec.files[entry.owner]
    of_the_file = Entry(entry.owner, FILE, known.mode or 0, known.uid or 0, known.gid or 0, 0, NO_DIGEST)
    fields = [f"digests: {digests(known.digests)}", *_attributes(of_the_file, known, entry.capabilities)]
    return _references(references, "files", entry.owner, f"{{{', '.join(fields)}}}")


def absence(path: str, policy: AttestationPolicy) -> str:
    """This path, there or not: its content is then judged no more."""
    patterns = [*policy.spec.files.volatile, path]
    return _policy(policy, "files.volatile", f"{{volatile: [{', '.join(quoted(each) for each in patterns)}]}}", path)


def writing(policy: AttestationPolicy) -> str:
    """Code, whoever writes to it, as long as its content is referenced."""
    return _policy(policy, "files.immutable", "{immutable: false}")


def execution(path: str, digest: Digest, references: ReferenceValues) -> str:
    """This executable, with this content."""
    if not digest:
        return ""
    return _references(references, "executables", path, _digests(references.spec.executables.get(path, ()), digest))


def call(name: str, references: ReferenceValues) -> str:
    """This call beside those of the set of its own name, where there is one, so that no other set is replaced."""
    known = references.spec.syscalls.get(ALLOWED_CALLS, ())
    return _references(references, "syscalls", ALLOWED_CALLS, f"[{', '.join(map(quoted, (*known, name)))}]")


def capability(name: str, policy: AttestationPolicy) -> str:
    """The use of this one beside those that may be used."""
    allowed = dict.fromkeys((*(policy.spec.syscalls.capabilities or ()), name))
    return _policy(policy, "syscalls.capabilities", f"{{capabilities: [{', '.join(allowed)}]}}")


def code(path: str, digest: Digest, policy: AttestationPolicy, references: ReferenceValues) -> str:
    """This path as code, which it is where no pattern makes it anything else, and this executable there."""
    listed = execution(path, digest, references)
    return "---\n".join([*_as_code(path, policy), listed]) if listed else ""


def _as_code(path: str, policy: AttestationPolicy) -> list[str]:
    """Every class of data without the patterns that make it of this class."""
    files = policy.spec.files
    others = {name: [each for each in getattr(files, name) if not matches(path, [each])] for name in sorted(DATA)}
    return [
        _policy(policy, f"files.{name}", f"{{{name}: [{', '.join(map(quoted, patterns))}]}}", path)
        for name, patterns in others.items()
        if len(patterns) < len(getattr(files, name))
    ]


def deleted(path: str, digest: Digest, policy: AttestationPolicy, references: ReferenceValues) -> str:
    """Executables without a name, and this one among them."""
    listed = code(path, digest, policy, references)
    unnamed = _policy(policy, "processes.forbidDeleted", "{forbidDeleted: false}")
    return f"{unnamed}---\n{listed}" if listed else ""


def process_rule(field: str, policy: AttestationPolicy) -> str:
    """field: one of spec.processes that asks for something, or forbids it."""
    return _policy(policy, f"processes.{field}", f"{{{field}: false}}")


def preload(entry: str, policy: AttestationPolicy) -> str:
    """This library or folder before a program's own, and those that may come there already."""
    allowed = [*(policy.spec.processes.preload or ()), entry]
    value = f"{{preload: [{', '.join(quoted(each) for each in allowed)}]}}"
    return _policy(policy, "processes.preload", value, entry)


def capabilities(found: str, policy: AttestationPolicy) -> str:
    """These capabilities beside those that are allowed. found: hex, as CapEff."""
    both = int(found, 16) | int(policy.spec.processes.most_capabilities or "0", 16)
    return _policy(policy, "processes.mostCapabilities", f'{{mostCapabilities: "{both:x}"}}')


def privileges(policy: AttestationPolicy) -> str:
    return _policy(policy, "processes.requireNoNewPrivileges", "{requireNoNewPrivileges: false}")


def mapped(code: Code, policy: AttestationPolicy, references: ReferenceValues) -> str:
    """This file, with this content, as code: among `files`, which allows nobody to execute it by itself."""
    if not code.digest:
        return ""
    known, narrower = references.spec.files.get(code.path), _as_code(code.path, policy)
    fields = [f"digests: {_digests(known.digests if known else (), code.digest)}"]
    if known is not None:
        entry = Entry(code.path, FILE, known.mode or 0, known.uid or 0, known.gid or 0, 0, code.digest)
        fields += _attributes(entry, known, known.capabilities)
    listed = _references(references, "files", code.path, f"{{{', '.join(fields)}}}")
    return "---\n".join([*narrower, listed]) if listed else ""


def loose(code: Code, policy: AttestationPolicy) -> str:
    """Code that is of no file, for this program: twice as much, as what a compiler makes grows."""
    allowed = {each.executable: each for each in policy.spec.memory.jit}
    before = allowed.get(code.executable)
    allowed[code.executable] = CodeAllowance.model_construct(
        executable=code.executable,
        most=max(2 * code.amount, before.most if before else 0),
        writable=code.writable or (before is not None and before.writable),
        memfd=code.kind is CodeKind.MEMFD or (before is not None and before.memfd),
    )
    entries = ", ".join(map(_allowance, allowed.values()))
    return _policy(policy, "memory.jit", f"{{jit: [{entries}]}}", code.executable)


def _allowance(allowed: CodeAllowance) -> str:
    fields = [f"executable: {quoted(allowed.executable)}", f"most: {amount_text(allowed.most)}"]
    fields += [f"{name}: true" for name in ("writable", "memfd") if getattr(allowed, name)]
    return f"{{{', '.join(fields)}}}"


def shell_on_socket(path: str, policy: AttestationPolicy) -> str:
    """This program, with connections that it is given."""
    listed = dict.fromkeys((*policy.spec.processes.shells_on_sockets, path))
    place = "processes.shellsOnSockets"
    return _policy(policy, place, f"{{shellsOnSockets: [{', '.join(map(quoted, listed))}]}}", path)


def destination(to: str, policy: AttestationPolicy) -> str:
    """This one beside those that are allowed."""
    listed = dict.fromkeys((*(policy.spec.egress.allowed or ()), to))
    return _policy(policy, "egress.allowed", f"{{allowed: [{', '.join(map(quoted, listed))}]}}")


def alert(raised: Alert, policy: AttestationPolicy) -> str:
    """Alerts of this rule taken out of each entry that is for them."""
    itself = "".join(f"[{each}]" if each in "*?[" else each for each in raised.rule)
    entries = (_alert_rule(each, itself if each.matches(raised) else "") for each in policy.spec.detectors.alerts)
    return _policy(policy, "detectors.alerts", f"{{alerts: [{', '.join(entries)}]}}")


def _alert_rule(stated: AlertRule, without: str) -> str:
    """without: one more that it is not for; empty for none."""
    left_out = (*stated.without, *([without] if without else ()))
    fields = [f"detector: {stated.detector}", f"rules: [{', '.join(map(quoted, stated.rules))}]"]
    fields += [f"without: [{', '.join(map(quoted, left_out))}]"] if left_out else []
    fields += [f"priority: {stated.priority}"] if stated.priority is not None else []
    fields += [f"tags: [{', '.join(map(quoted, stated.tags))}]"] if stated.tags else []
    return f"{{{', '.join(fields)}, class: {stated.alert_class}}}"


def unheard(detector: Detector, policy: AttestationPolicy) -> str:
    """A detector that is heard where it is there, and missed by nobody where it is not."""
    return _policy(
        policy, f"detectors.sources.{detector}", f"{{sources: {{{detector}: {{demand: {Demand.BEST_EFFORT}}}}}}}"
    )


ALLOWED_CALLS = "allowed"
"""The set of calls that what is allowed by hand stands in."""
OTHER_PROXIES = "other"
"""The version under which an Envoy is listed whose version nobody has said."""


def proxy(digest: Digest, references: ReferenceValues) -> str:
    """An Envoy with this digest."""
    known = references.spec.proxies.get(OTHER_PROXIES, ())
    return _references(references, "proxies", OTHER_PROXIES, _digests(known, digest))


def proxy_rule(field: str, policy: AttestationPolicy) -> str:
    """field: one of spec.proxy that asks for something."""
    return _policy(policy, f"proxy.{field}", f"{{{field}: false}}")


def unmeasured(layer: Layer, policy: AttestationPolicy) -> str:
    """A layer that is measured where it can be, and missed by nobody where it cannot."""
    if policy.spec.demand(layer) is not Demand.REQUIRED:
        return ""
    return _policy(policy, f"layers.{layer}.demand", f"{{{layer}: {{demand: {Demand.BEST_EFFORT}}}}}")


def age(layer: Layer, field: str, milliseconds: int, policy: AttestationPolicy) -> str:
    """field: maxAge or fullMaxAge."""
    return _policy(policy, f"layers.{layer}.{field}", f"{{{layer}: {{{field}: {milliseconds}ms}}}}")


def weaker(name: str, found: str, policy: AttestationPolicy) -> str:
    """name: grade, cutting or profile."""
    return _policy(policy, f"coverage.{name}", f"{{{name}: {found}}}")


def watched(found: Watching, policy: AttestationPolicy) -> str:
    return _policy(policy, "syscalls.watching", f"{{watching: {found}}}")


def ungated(policy: AttestationPolicy) -> str:
    """A gate where there can be one, and missed by nobody where there cannot."""
    return _policy(policy, "processes.gate", f"{{gate: {Demand.BEST_EFFORT}}}")


def unnotified(policy: AttestationPolicy) -> str:
    """A filter that asks us where there is one, and missed by nobody where there is none."""
    return _policy(policy, "syscalls.notified", f"{{notified: {Demand.BEST_EFFORT}}}")


def undenied(policy: AttestationPolicy) -> str:
    """What is refused where that can be had, and missed by nobody where it cannot."""
    return _policy(policy, "egress.deny", f"{{deny: {Demand.BEST_EFFORT}}}")


def less_isolated(missing: Sequence[Guarantee], policy: AttestationPolicy) -> str:
    """Everything that is asked of isolation but these."""
    asked = [each for each in policy.spec.coverage.isolation if each not in missing]
    return _policy(policy, "coverage.isolation", f"{{isolation: [{', '.join(asked)}]}}")


def _attributes(entry: Entry, known: FileReference | None, capabilities: str) -> list[str]:
    """Those that the reference states; of a new path its permission bits."""
    fields = []
    if known is None or known.mode is not None:
        fields.append(f'mode: "{entry.mode:04o}"')
    if known is not None and known.uid is not None:
        fields.append(f"uid: {entry.uid}")
    if known is not None and known.gid is not None:
        fields.append(f"gid: {entry.gid}")
    if known is not None and known.optional:
        fields.append("optional: true")
    if capabilities or (known is not None and known.capabilities):
        fields.append(f'capabilities: "{capabilities or (known and known.capabilities)}"')
    return fields


def _digests(known: tuple[Digest, ...], new: Digest) -> str:
    return digests(dict.fromkeys((*known[-MOST_DIGESTS:], new)))


def _references(document: ReferenceValues, section: str, path: str, value: str) -> str:
    if not _writable(path):
        return ""
    (meta,) = document.stated_by(section)
    return f"{_head(document.kind, meta)}spec:\n  {section}:\n    {quoted(path)}: {value}\n"


def _policy(document: AttestationPolicy, place: str, value: str, path: str = "") -> str:
    """place: of what changes, in the spec (`layers.files`). Whoever else states it has to allow it as well."""
    section = place.partition(".")[0]
    if not _writable(path):
        return ""
    stated = document.stated_by(place)
    return "---\n".join(f"{_head(document.kind, meta)}spec:\n  {section}: {value}\n" for meta in stated)


def _head(kind: str, meta: Metadata) -> str:
    place = "" if meta.namespace == "default" else f", namespace: {quoted(meta.namespace)}"
    return f"kind: {kind}\nmetadata: {{name: {quoted(meta.name)}{place}}}\n"


def _writable(path: str) -> bool:
    """A name that is no Unicode text can stand in no document."""
    return not any("\ud800" <= each <= "\udfff" for each in path)
