"""What `proofbeat policy` reads beside policies: cases of somebody else's, what was learned before, saved evidence."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import evidence
from attestation.errors import InvalidConfiguration, InvalidInput
from policies.author import saved
from policies.author.cases import read
from policies.author.junit import junit
from policies.author.learning import learned as learning
from policies.author.learning import outcome
from policies.author.learning.learned import Amount, Learned
from policies.author.learning.merging import merged
from policies.author.trial import tried
from policies.model import dialect
from policies.model.policy import Mode
from policies.model.references import ReferenceValues
from policies.model.writing import reference_values
from tests.fuzz.target import Target, scratch
from tests.unit.policies.learning.samples import CONTENTS, origin, reference, run
from tests.unit.policies.test_cases import POLICIES, case, claims, fact
from tests.unit.policies.world import claimed


def cases(data: bytes) -> None:
    """Each case is tried and told with its line, or the document says where it is wrong."""
    folder = scratch() / "cases"
    folder.mkdir(exist_ok=True)
    (folder / "policies.yaml").write_text(POLICIES)
    file = folder / "tests.yaml"
    file.write_bytes(data)
    with suppress(InvalidConfiguration):
        found = [each for written in read(file) for each in tried(written)]
        assert all(each.place.line > 0 for each in found)
        junit(found)


def saved_evidence(data: bytes) -> None:
    """What is read was signed by the key that it names, and has no layer but those that it claims."""
    folder = scratch() / "evidence"
    folder.mkdir(exist_ok=True)
    file = folder / f"{_INSTANCE}.json"
    file.write_bytes(data)
    with suppress(InvalidInput):
        (found,) = saved.read(folder)
        assert found.bodies.keys() <= {each.digest for each in found.claims.layers}


def learned(data: bytes) -> None:
    """What is read is the same when it is written and read, is itself put together with itself, and can be stated."""
    with suppress(InvalidInput):
        found = learning.read(data.decode(errors="replace"), "here")
        whole = merged([found])
        assert merged([whole, found]) == whole
        assert learning.read(learning.text(whole), "here") == whole
        outcome.policy("web", whole, Mode.ENFORCE)
        stated = reference_values(outcome.references("web", whole), outcome.origins(whole))
        ((value, node),) = dialect.parse(stated, "here")
        assert dialect.validate(value, node, ReferenceValues, "here") == outcome.references("web", whole)


_CLAIMS, _ = claimed()
_INSTANCE = _CLAIMS.instance.value


def _cases() -> tuple[bytes, ...]:
    written = (
        claims("files: {/srv/app/main.py: changed, /srv/app/x: absent}", "tier: contraindicated, reasons: []"),
        claims("base: nothing, processes: [/tmp/p], proxy: {traced: yes}, ages: {files: {age: 2m}}", "tier: none"),
        claims("coverage: {dead: [files], absent: [proxy], isolation: [no-tracing]}", "opens: false"),
        fact("file: {path: /srv/app/main.py, change: removed}", "{signal: file-missing, class: drift}"),
        fact("execution: {path: /tmp/p, content: unreadable, deleted: true}", "execution-deleted"),
        case("at: 2026-01-01T00:00:00Z, expect: {tier: affirming}"),
    )
    head = "kind: PolicyTest\nmetadata: {name: web}\nspec:\n  policies: [policies.yaml]\n  cases:\n"
    return tuple(f"{head}    - {each}\n".encode() for each in written)


def _entries() -> tuple[bytes, ...]:
    signed = evidence.sign(_CLAIMS, b"n" * 32, ec.derive_private_key(7, ec.SECP256R1()), issued_at=1.0)
    entry = {
        "instance": _INSTANCE,
        "registration": "web",
        "evidence": base64.b64encode(signed).decode(),
        "at_ms": 1,
    }
    return (json.dumps(entry).encode(),)


def _learned() -> tuple[bytes, ...]:
    """Of each table one entry, and nothing but a run."""
    first = origin()
    whole = Learned(
        runs=(run(), run(1, running=("/bin/app",))),
        include=("/srv",),
        exempt=("*.log",),
        files={"/srv/a": reference()},
        volatile={"/srv/b": first},
        executables={"/bin/app": {CONTENTS[0]: first}},
        begun={"/srv/a": {CONTENTS[1]: first}},
        mapped={"/lib/libc.so": {CONTENTS[0]: first}},
        preload={"libx.so": first},
        code={"/bin/app": Amount(most=4096, writable=True, origin=first)},
        calls={"startup": {"read": first, "compat": first}},
    )
    return tuple(learning.text(each).encode() for each in (whole, Learned(runs=(run(),))))


_WORDS = (b"referenced", b"changed", b"unreadable", b"absent", b"content: ", b"expect: ", b"{", b"}", b"[", b"]", b": ")

TARGETS = (
    Target("policy-cases", cases, _cases, _WORDS),
    Target("learned", learned, _learned, (b'"runs": ', b'"calls": ', b'"origin": ', b"io_uring:", b"\\ud800"), 16_384),
    Target("saved-evidence", saved_evidence, _entries, (b'"evidence": ', b'"instance": ', b"AAAA", b"==")),
)
