"""attestation/: what is signed, and the words it is made of."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import replace

from attestation import (
    breakglass,
    cbor,
    channel,
    claimset,
    cmw,
    cose,
    evidence,
    jws,
    keys,
    manifest,
    memory,
    nonce,
    processes,
    proxy,
    release,
    results,
    spiffe,
)
from attestation.breakglass import Reach, Signed
from attestation.channel import (
    Beat,
    Covered,
    Guard,
    Guarded,
    Inspected,
    KillEnvoy,
    Measure,
    Observed,
    Owned,
    Pinned,
    Scope,
    Sever,
    Severed,
    Sweep,
    Swept,
    Whose,
)
from attestation.detectors import reading, relay
from attestation.detectors.alerts import MOST_RULE, MOST_TAGS, MOST_TEXT, Alert, Detector, Whereabouts, concern
from attestation.errors import InvalidInput, MalformedEvidence, MalformedResult
from attestation.facts import (
    Actor,
    CollectorFact,
    CollectorState,
    EgressFact,
    ExecutionFact,
    FileChange,
    FileFact,
    InstanceFact,
    MemoryFact,
    MountFact,
    Opened,
    PreloadFact,
    ProcessAspect,
    ProcessFact,
    RefusalFact,
    ScriptFact,
    Sighting,
    StdioFact,
)
from attestation.layers import Layer, Method
from attestation.manifest import Entry
from attestation.memory import Code, CodeKind
from attestation.observation import Observation
from attestation.patterns import matches
from attestation.plain import build, plain
from attestation.processes import ProcessKind
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from attestation.quantities import duration, instant, instant_text, seconds
from tests.fuzz.grammar import repaired, value_of
from tests.fuzz.target import Target
from tests.fuzz.world import CLAIMS, INSTANCE, KEY, NONCE, NOW, PUBLIC, RESULT, SIGNER
from tests.unit.attestation import alerting
from tests.unit.policies.operators import order

_SIGNED = evidence.sign(CLAIMS, NONCE, KEY, issued_at=NOW)
_PAYLOAD = cose.parse(_SIGNED).payload
_AAD = b"proofbeat/evidence"


def strict_cbor(data: bytes) -> None:
    """One value, one encoding: what loads is what dumps would write, so no two byte strings mean the same."""
    with suppress(MalformedEvidence):
        assert cbor.dumps(cbor.loads(data)) == data
    value = value_of(data)
    encoded = cbor.dumps(value)
    with suppress(MalformedEvidence):  # deeper or longer than is allowed
        assert cbor.loads(encoded) == value


def cose_message(data: bytes) -> None:
    """A message that parses is spelled in the one way there is, and asking whether it holds never fails."""
    for message in (data, b"\xd2" + repaired(data[1:])):
        with suppress(MalformedEvidence):
            parsed = cose.parse(message)
            parts = [parsed.protected, {}, parsed.payload, parsed.signature]
            assert b"\xd2" + cbor.dumps(parts) == message
            parsed.holds(PUBLIC, aad=_AAD)


def signed_evidence(data: bytes) -> None:
    """Evidence that verifies says one thing in one spelling: no other signed payload decodes to its meaning."""
    with suppress(MalformedEvidence):
        evidence.verify(data)
    payload = repaired(data)
    message = cose.sign1(payload, KEY, aad=_AAD)
    with suppress(MalformedEvidence):
        told = evidence.parse(message)
        assert told.nonce == evidence.nonce_of(message)
        restated = {
            6: told.issued_at,
            8: {1: keys.to_cose(told.key)},
            10: told.nonce,
            265: told.profile,
            -70001: claimset.encode(told.claims),
        }
        assert cbor.dumps(restated) == payload
        assert told.holds == (keys.public_der(told.key) == keys.public_der(PUBLIC))


def claims(data: bytes) -> None:
    """Claims that decode encode to the very value they came from."""
    value = value_of(data)
    with suppress(MalformedEvidence):
        assert claimset.encode(claimset.decode(value)) == value


def public_key(data: bytes) -> None:
    """A key has one DER, and one COSE_Key."""
    with suppress(InvalidInput):
        assert keys.public_der(keys.from_der(data)) == data
    value = value_of(data)
    with suppress(MalformedEvidence):
        assert keys.to_cose(keys.from_cose(value)) == value


def attestation_result(data: bytes) -> None:
    """A result that is read can be said again, in both spellings, and is then the same result."""
    with suppress(MalformedResult):
        result = results.read_payload(data)
        for profile in (results.VERAISON_PROFILE, results.IETF_PROFILE):
            again = results.read_payload(results.payload(result, profile=profile))
            assert again == replace(result, reasons=again.reasons)
    with suppress(MalformedResult):
        results.parse(SIGNER.sign(data, kind=results.KIND), PUBLIC, now=NOW)


_TOKEN = SIGNER.sign(b'{"a":1}', kind=results.KIND)


def web_signature(data: bytes) -> None:
    """Only what the key signed opens, and only for its purpose; the signed text is not to be spelled otherwise."""
    with suppress(MalformedResult):
        token = data.decode("latin-1")
        assert jws.open_signed(token, PUBLIC, kind=results.KIND) == b'{"a":1}'
        assert token.rpartition(".")[0] == _TOKEN.rpartition(".")[0]


def release_order(data: bytes) -> None:
    """A signed order that parses means what it means when it is signed again."""
    with suppress(MalformedResult):
        order = release.parse(SIGNER.sign(data, kind=release.KIND), PUBLIC)
        assert release.parse(release.sign(order, SIGNER), PUBLIC) == order


def glass_order(data: bytes) -> None:
    """An order has one spelling and can be shown; a file that reads is written again as it was meant."""
    with suppress(MalformedResult):
        payload = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        order = breakglass.from_text(json.dumps({"payload": payload, "signatures": []})).order
        assert breakglass.payload(order) == data
        assert str(order).isprintable()
    with suppress(MalformedResult):
        read = breakglass.from_text(data.decode("utf-8", "surrogateescape"))
        assert breakglass.from_text(breakglass.to_text(read)) == read


def wrapped_result(data: bytes) -> None:
    """A result that is found in an extension is found again in the extension made of it."""
    with suppress(MalformedResult):
        ear = cmw.ear_in(data)
        assert cmw.ear_in(cmw.extension(ear).value) == ear


def file_manifest(data: bytes) -> None:
    """A body that unpacks is the one body of its entries, and only such a body has changed from another one."""
    with suppress(MalformedEvidence):
        assert manifest.pack(manifest.unpack(data)) == data
    for before in _manifests():
        try:
            changes = manifest.changes(before, data)
        except MalformedEvidence:
            changes = None
        assert _changed(before, changes) == _entries(data)


def _entries(body: bytes) -> dict[str, Entry] | None:
    """None for what does not unpack."""
    try:
        return {each.path: each for each in manifest.unpack(body)}
    except MalformedEvidence:
        return None


def _changed(before: bytes, changes: manifest.Changes | None) -> dict[str, Entry] | None:
    """The entries after these changes; None after such as there cannot be."""
    if changes is None:
        return None
    was = {each.path for each in changes.was}
    kept = {each.path: each for each in manifest.unpack(before) if each.path not in was}
    return kept | {each.path: each for each in changes.there}


def process_list(data: bytes) -> None:
    """A body that unpacks is the one body of its kinds."""
    with suppress(MalformedEvidence):
        assert processes.pack(processes.unpack(data)) == data


def code_list(data: bytes) -> None:
    """A body that unpacks is the one body of its code."""
    with suppress(MalformedEvidence):
        assert memory.pack(memory.unpack(data)) == data


def envoy_held(data: bytes) -> None:
    """A body that unpacks is the one body of its proxy."""
    with suppress(MalformedEvidence):
        assert proxy.pack(proxy.unpack(data)) == data


def measurer_message(data: bytes) -> None:
    """A datagram that decodes can be sent on and decodes to the same again."""
    with suppress(InvalidInput):
        message = channel.decode(data)
        assert channel.decode(channel.encode(message)) == message


def detector_alert(data: bytes) -> None:
    """Whatever a detector writes is an alert within bounds, fit to be shown and sent on, or a sign, or refused."""
    with suppress(InvalidInput):
        heard = reading.read(data)
        assert build(type(heard), plain(heard)) == heard
        if isinstance(heard, Alert):
            shown_there = (heard.told, heard.executable, *heard.tags, heard.about.container, heard.about.pod_uid)
            assert all(each.isprintable() for each in (*shown_there, heard.about.pod, heard.about.node))
            assert len(heard.told) < MOST_RULE + MOST_TEXT + 64 and len(heard.tags) <= MOST_TAGS
            for here in (True, False):
                concern(heard.about, Whereabouts("5" * 64, "uid", "default", "web", "node-1", pids=True), here=here)


def relay_word(data: bytes) -> None:
    """A word that is read is written again as one that means the same; and no detector's line is one."""
    with suppress(InvalidInput):
        word = relay.decode(data)
        if word is not None:
            assert relay.decode(relay.encode(word)[:-1]) == word


def spiffe_id(data: bytes) -> None:
    """An ID has one spelling, and only what lies under the reserved prefix is reserved."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(InvalidInput):
        parsed = spiffe.SpiffeId.parse(text)
        assert str(parsed) == text
        assert text.isascii()
        assert parsed.reserved == text.startswith(f"spiffe://{parsed.trust_domain}/proofbeat/")


_NONCE_KEY, _HOLDER = bytes(range(32)), bytes(range(16))


def authority_nonce(data: bytes) -> None:
    """Whatever is read as ours, we can issue; and checking never fails on what is not."""
    checked = nonce.check(_NONCE_KEY, data, _HOLDER, epoch=1, now_ms=NOW * 1000, valid_ms=20_000)
    if checked.facts is not None:
        facts = checked.facts
        again = nonce.issue(
            _NONCE_KEY,
            facts.holder,
            sequence=facts.sequence,
            issued_ms=facts.issued_ms,
            epoch=facts.epoch,
            random=data[37:45],
        )
        assert again == data
    else:
        assert checked.faults == (nonce.NonceFault.FORGED,)


def quantity(data: bytes) -> None:
    """A duration is a number of seconds that exists, and is written again as one that reads; an instant as itself."""
    text = data.decode("utf-8", "replace")
    with suppress(InvalidInput):
        value = seconds(text)
        assert abs(seconds(duration(value)) - value) <= 0.0005 + value * 1e-9
    with suppress(InvalidInput):
        assert instant_text(instant(text)) == text


def path_pattern(data: bytes) -> None:
    """Any pattern against any path a workload can name: an answer, and soon (the target's time limit judges)."""
    pattern, _, path = data.decode("utf-8", "replace").partition("\n")
    matches("/" + path, [pattern])
    matches("/" + path * 8, [pattern])


def _manifests() -> tuple[bytes, ...]:
    entries = (
        Entry("/srv/app", manifest.DIRECTORY, 0o755, 0, 0, 0, manifest.NO_DIGEST),
        Entry("/srv/app/\udcff", manifest.LINK, 0o777, 0, 0, 3, "b" * 64),
        Entry("/srv/app/a", manifest.FILE, 0o4755, 1000, 1000, 5, "a" * 64),
    )
    return manifest.pack(()), manifest.pack(entries)


def _process_lists() -> tuple[bytes, ...]:
    kind = ProcessKind("/bin/a", "a" * 64, "/lib/ld", "b" * 64, 0, 0, "0" * 16, True, 2, ("mnt:[1]", "net:[2]"))
    return processes.pack(()), processes.pack((kind, replace(kind, executable="/bin/b", deleted=True)))


def _code_lists() -> tuple[bytes, ...]:
    file = Code(CodeKind.FILE, path="/lib/a.so", digest="a" * 64)
    loose = Code(CodeKind.ANONYMOUS, "/bin/a", writable=True, amount=4096)
    return memory.pack(()), memory.pack((file, loose, Code(CodeKind.PATCHED, "/bin/a", "/lib/a.so", offset=8192)))


_ENVOY = ProxyProcess("a" * 64, Known.NO, Known.UNKNOWN, Known.YES)


def _proxies() -> tuple[bytes, ...]:
    held = Proxy(_ENVOY, Delivered.SECRETS, Denial.IN_FORCE, ("inbound", "outbound"), Known.UNKNOWN)
    unread = replace(_ENVOY, executable="", traced=Known.YES)
    delivered = Proxy(unread, Delivered.EVERYTHING, Denial.PENDING, (), Known.YES)
    return tuple(proxy.pack(each) for each in (None, held, delivered))


def _datagrams() -> tuple[bytes, ...]:
    actor = Actor(7, "/bin/sh")
    observation = Observation(Layer.FILES, "a" * 64, Method.EVENT, 1.5, 2.5, 3)
    return tuple(
        channel.encode(message)
        for message in (
            Scope(7, ("/srv",), ((("*.log",), ("/srv/**",)),), "/pod", 3.0, egress=("10.0.0.0/8:443",)),
            Measure((Layer.FILES,), 1.5, full=True),
            Guard(8),
            Sweep(1),
            Sever(2, ("127.0.0.1:9443", "[::1]:9443")),
            KillEnvoy(2),
            Beat(3),
            Pinned(INSTANCE, "boot", 4.5),
            Covered(CLAIMS.coverage),
            Observed(observation, has_body=True),
            Swept(1, 2, 3, 4, 5.5),
            Severed(1, 2, 3),
            Guarded(8, workload=False),
            Inspected(Method.FULL, 1.5, 2.5, _ENVOY, 8, "9 /bin/gdb"),
            channel.Fault("what", "where", "mend"),
            FileFact(1.0, "/srv/\udcff", FileChange.MODIFIED, "a" * 64, 0o644, 1, 2, actor),
            MountFact(1.0, "/srv", mounted=True, kind="tmpfs"),
            ExecutionFact(1.0, "/bin/sh", "a" * 64, actor, Sighting.EVENT, deleted=True),
            RefusalFact(1.0, "/bin/sh", "a" * 64, actor, deleted=True),
            ScriptFact(1.0, "/srv/x.py", "a" * 64, actor, Sighting.EVENT, deleted=True, pid_inside=3),
            PreloadFact(1.0, "LD_PRELOAD", "/x.so", actor, "/x.so.1", "a" * 64, 3),
            ProcessFact(1.0, actor, ProcessAspect.TRACER, "0", "9"),
            StdioFact(1.0, actor, (0, 2), "TCPv6", Opened.THERE, "[2001:db8::7]:4444", 3),
            EgressFact(1.0, actor, "udp", "203.0.113.9", 53),
            CollectorFact(1.0, "files", CollectorState.OVERFLOWED),
            MemoryFact(1.0, actor, Code(CodeKind.MEMFD, "/bin/sh", amount=4096), "", "9 /bin/gdb", 2),
            InstanceFact(1.0, "ended"),
            Whose(4, 7, 1.5),
            Owned(4, workload=True, process=actor),
            Owned(5, workload=None),
        )
    )


def _nonces() -> tuple[bytes, ...]:
    return tuple(
        nonce.issue(_NONCE_KEY, _HOLDER, sequence=7, issued_ms=NOW * 1000 - age, epoch=1, random=b"12345678")
        for age in (-5_000, 1_000, 30_000)
    )


_JSON = (b'":', b'{"', b"[[", b"null", b"true", b"1e999", b"NaN", b"-Infinity", b"\\ud800", b"\\u0000", b"9" * 40)
_CBOR = (b"\x1b" + b"\xff" * 8, b"\x9f", b"\xbf", b"\xf9\x7e\x00", b"\xc2", b"\xf6", b"\xa0", b"\x80", b"\x18\x17")

TARGETS = (
    Target(
        "cbor",
        strict_cbor,
        lambda: (_PAYLOAD, cbor.dumps([{}, [], b"", "", 0, -1, True, None]), cbor.dumps({1: 2, "a": [3], b"b": {}})),
        _CBOR,
        most_bytes=70_000,
    ),
    Target("cose", cose_message, lambda: (_SIGNED, cose.sign1(b"", KEY)), _CBOR),
    Target("evidence", signed_evidence, lambda: (_SIGNED, _PAYLOAD), _CBOR, most_bytes=17_000),
    Target(
        "claims",
        claims,
        lambda: (cbor.dumps(claimset.encode(CLAIMS)), cbor.dumps(claimset.encode(replace(CLAIMS, served=1 << 127)))),
        _CBOR,
    ),
    Target(
        "public-key",
        public_key,
        lambda: (keys.public_der(PUBLIC), cbor.dumps(keys.to_cose(PUBLIC))),
        (b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x06\x03\x2b\x65\x70"),
        most_bytes=512,
    ),
    Target(
        "result",
        attestation_result,
        lambda: tuple(
            results.payload(RESULT, profile=each) for each in (results.VERAISON_PROFILE, results.IETF_PROFILE)
        ),
        (*_JSON, b"submods", b"proofbeat", b"reasons", b"generation", b"eat_nonce", b"ear.status", b"affirming"),
    ),
    Target(
        "jws", web_signature, lambda: (_TOKEN.encode(), _TOKEN.rpartition(".")[0].encode() + b"."), (b".", b"=", b"eyJ")
    ),
    Target(
        "release",
        release_order,
        lambda: (b'{"instance":"%s","causes":["c-1","c-2"],"iat":1700000000}' % INSTANCE.value.encode(),),
        (*_JSON, b"instance", b"causes", b"iat"),
    ),
    Target(
        "break-glass",
        glass_order,
        lambda: (
            breakglass.payload(order()),
            breakglass.payload(order(scope=breakglass.Scope(Reach.MESH))),
            breakglass.to_text(Signed(order()).with_signature(KEY)).encode(),
        ),
        (*_JSON, b'"not_after":', b'"reach":', b'"salt":', b'"payload":', b'"signatures":', b'"kid":', b"eyJ"),
    ),
    Target("cmw", wrapped_result, lambda: (cmw.extension(_TOKEN).value, cmw.extension("e" * 90).value), _JSON),
    Target("manifest", file_manifest, _manifests, (b"pbf1",), most_bytes=2048),
    Target("process-list", process_list, _process_lists, (*_JSON, b"namespaces", b"executable")),
    Target("code-list", code_list, _code_lists, (*_JSON, b"executable", b"patched", b'"amount":')),
    Target("proxy", envoy_held, _proxies, (*_JSON, b"executable", b"in-force", b'"filters":[')),
    Target("channel", measurer_message, _datagrams, (*_JSON, b'"is":"', b'"at":'), most_bytes=66_000),
    Target(
        "detector",
        detector_alert,
        lambda: tuple(
            alerting.line(each)
            for each in (
                alerting.FALCO_WITHOUT_VALUES,
                alerting.FALCO_METRICS,
                alerting.FALCO_DROPS,
                alerting.TETRAGON_EXEC,
                alerting.falco(),
                alerting.tetragon(),
                alerting.tetragon("process_lsm"),
            )
        ),
        (*_JSON, b'"output_fields":', b'"process_', b'"policy_name":', b"<NA>", b"://", b"host"),
        most_bytes=66_000,
    ),
    Target(
        "detector-relay",
        relay_word,
        lambda: tuple(
            relay.encode(each)[:-1]
            for each in (
                relay.Relays(Detector.FALCO),
                relay.Dropped(3),
                relay.Taken(7),
                relay.Turned(4, "why"),
            )
        ),
        (*_JSON, b'{"proofbeat":'),
    ),
    Target(
        "spiffe",
        spiffe_id,
        lambda: (b"spiffe://example.org/ns/a/sa/b", b"spiffe://example.org", b"spiffe://a/proofbeat/authority"),
        (b"spiffe://", b"%2f", b"..", b"/proofbeat/", "\u0430".encode(), b"\n"),
    ),
    Target("nonce", authority_nonce, _nonces, most_bytes=128),
    Target(
        "quantity",
        quantity,
        lambda: (b"250ms", b"10s", b"1.5m", b"1h", b"3650d", b"2026-12-31T23:59:59Z"),
        (b"9" * 30, b"0.", b"ms"),
        512,
    ),
    Target(
        "pattern",
        path_pattern,
        lambda: (b"*.log\nsrv/a.log", b"/srv/**/cache/**\nsrv/a/cache/b", b"/a/**/b*c?d/**/*e*f\na/x/bxcxd/y/zezf"),
        (b"**/", b"/**", b"*", b"/a" * 20, b"a" * 40),
        most_bytes=600,
    ),
)
