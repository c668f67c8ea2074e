"""PolicyTest: what is written down beside policies is tried by the same judgement that authority and sidecar make."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from attestation.errors import InvalidConfiguration
from policies.author.cases import read
from policies.author.junit import junit
from policies.author.trial import Tried, tried

A, B, C, E = (letter * 64 for letter in "abce")
POLICIES = f"""\
kind: AttestationPolicy
metadata: {{name: hardened}}
spec:
  mode: enforce
  files: {{include: [/srv/app], volatile: ["*.log"]}}
  processes: {{mostCapabilities: "ff", requireNoNewPrivileges: true}}
  coverage: {{grade: closed-by-guardian, isolation: [no-tracing]}}
---
kind: ReferenceValues
metadata: {{name: web}}
spec:
  files:
    /srv/app/main.py: {{digests: [sha256:{A}], mode: "0600", uid: 7}}
    /srv/app/page.html: {{digests: [sha256:{B}]}}
  executables: {{/usr/bin/python3: [sha256:{C}]}}
  proxies: {{1.40.0: [sha256:{E}]}}
---
kind: WorkloadRegistration
metadata: {{name: web}}
spec: {{spiffeId: spiffe://example.org/web, references: web}}
---
kind: WorkloadRegistration
metadata: {{name: api, namespace: lonely}}
spec: {{spiffeId: spiffe://example.org/api, references: web}}
"""


def written(folder: Path, *cases: str, policies: str = POLICIES) -> Path:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "p.yaml").write_text(policies)
    file = folder / "tests.yaml"
    head = "kind: PolicyTest\nmetadata: {name: web}\nspec:\n  policies: [policies]\n  cases:\n"
    file.write_text(head + "".join(f"    - {case}\n" for case in cases))
    return file


def trying(folder: Path, *cases: str, policies: str = POLICIES) -> list[Tried]:
    return [each for test in read(written(folder, *cases, policies=policies)) for each in tried(test)]


def case(body: str) -> str:
    return f"{{name: a case, registration: web, {body}}}"


def claims(given: str, expected: str) -> str:
    return case(f"claims: {{{given}}}, expect: {{{expected}}}")


def fact(given: str, expected: str) -> str:
    return case(f"fact: {{{given}}}, expect: {{violates: {expected}}}")


def failures(folder: Path, body: str, policies: str = POLICIES) -> tuple[str, ...]:
    (found,) = trying(folder, body, policies=policies)
    return found.failures


GOOD = "tier: affirming, opens: true, reasons: []"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", GOOD),
        ("files: {/srv/app/noise.log: changed, /elsewhere: changed}", GOOD),
        ("files: {/srv/app/main.py: referenced}", GOOD),
        ("files: {/srv/app/main.py: sha256:" + A + "}", GOOD),
        ("files: {/srv/app/page.html: {uid: 9, gid: 9}}", GOOD),
        ("files: {/srv/app: {kind: folder}}", GOOD),
        (
            "files: {/srv/app/page.html: changed}",
            "tier: contraindicated, opens: false, reasons: [{signal: file-modified, subject: /srv/app/page.html}]",
        ),
        ("files: {/srv/app/new: changed}", "reasons: [{signal: file-unreferenced, subject: /srv/app/new}]"),
        ("files: {/srv/app/main.py: absent}", "reasons: [{signal: file-missing, class: drift}]"),
        ("files: {/srv/app/main.py: unreadable}", "reasons: [file-unreadable]"),
        ('files: {/srv/app/main.py: {mode: "0644"}}', "reasons: [file-attributes]"),
        ("files: {/srv/app/main.py: {uid: 0}}", "reasons: [file-attributes]"),
        ("base: nothing", "reasons: [file-missing]"),
        ("base: nothing, files: {/srv/app/main.py: referenced, /srv/app/page.html: referenced}", GOOD),
        ("processes: [/tmp/payload]", "reasons: [{signal: execution-foreign, class: tamper}]"),
        ("processes: [{executable: /usr/bin/python3, content: changed}]", "reasons: [execution-modified]"),
        ("processes: [{executable: /usr/bin/python3, deleted: true}]", "reasons: [execution-deleted]"),
        ("processes: [{executable: /usr/bin/python3, loader: /tmp/ld}]", "reasons: [execution-foreign]"),
        ("processes: [{executable: /usr/bin/python3, capabilities: 1ff}]", "reasons: [capabilities-exceeded]"),
        ("processes: [{executable: /usr/bin/python3, noNewPrivileges: false}]", "reasons: [privileges-open]"),
        ("coverage: {isolation: []}", "tier: warning, reasons: [coverage-weak]"),
        ("coverage: {grade: bounded-new-connections-only}", "tier: warning, reasons: [coverage-weak]"),
        ("coverage: {dead: [files]}", "tier: none, reasons: [collector-dead]"),
        ("coverage: {absent: [files]}", "tier: none, reasons: [layer-absent]"),
        ("ages: {files: {age: 61s}}", "tier: warning, reasons: [layer-old]"),
        ("ages: {files: {age: 1s, full: 2h}}", "tier: warning, reasons: [layer-old]"),
    ],
)
def test_claims_come_to_the_verdict_that_their_description_leads_to(tmp_path: Path, given: str, expected: str) -> None:
    assert failures(tmp_path, claims(given, expected)) == ()


@pytest.mark.parametrize(("given", "expected"), [("", GOOD), ("coverage: {gate: false}", "reasons: [coverage-weak]")])
def test_a_gate_stands_unless_the_case_says_otherwise(tmp_path: Path, given: str, expected: str) -> None:
    asking = POLICIES.replace("processes: {", "processes: {gate: required, ")
    assert failures(tmp_path, claims(given, expected), policies=asking) == ()


@pytest.mark.parametrize(
    ("given", "signal"),
    [
        ("", ""),
        ("proxy: {content: changed}", "proxy-foreign"),
        ("proxy: {content: unreadable}", "proxy-unknown"),
        ("proxy: {traced: yes}", "proxy-traced"),
        ("proxy: {absent: true}", "proxy-absent"),
        ("proxy: {drainsAtOnce: no}", "proxy-draining"),
    ],
)
def test_an_envoy_is_there_and_well_where_policy_asks_for_one_unless_the_case_says_otherwise(
    tmp_path: Path, given: str, signal: str
) -> None:
    asking = POLICIES.replace("mode: enforce", "mode: enforce\n  layers: {proxy: {}}\n  proxy: {requireDrainNow: true}")
    expected = f"reasons: [{signal}]" if signal else GOOD
    assert failures(tmp_path, claims(given, expected), policies=asking) == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("file: {path: /srv/app/page.html}", "{signal: file-modified, subject: /srv/app/page.html, class: drift}"),
        ("file: {path: /srv/app/main.py, content: referenced}", "nothing"),
        ("file: {path: /srv/app/main.py, change: removed}", "file-missing"),
        ("file: {path: /srv/app/noise.log}", "nothing"),
        ("execution: {path: /tmp/payload}", "{signal: execution-foreign, class: tamper}"),
        ("execution: {path: /usr/bin/python3}", "nothing"),
        ("execution: {path: /tmp/payload, refused: true}", "{signal: execution-refused, class: tamper}"),
        ("execution: {path: /usr/bin/python3, deleted: true}", "execution-deleted"),
        ("execution: {path: /usr/bin/python3, temporary: tmpfs, gains: user 0}", "nothing"),
        ("script: {path: /srv/app/main.py}", "nothing"),
        ("script: {path: /srv/app/main.py, content: changed}", "script-modified"),
        ("script: {path: /tmp/x.py}", "{signal: script-foreign, class: tamper}"),
        ("preload: {entry: /tmp/x.so, content: changed}", "process-preload"),
        ("preload: {source: LD_LIBRARY_PATH, entry: /srv/app/lib}", "nothing"),
        ("process: {executable: /usr/bin/python3, aspect: tracer, before: '', after: '77'}", "process-tracer"),
        ("process: {executable: /usr/bin/python3, aspect: tracer, before: '77', after: ''}", "nothing"),
        ("stdio: {executable: /bin/sh}", "process-stdio-socket"),
        ("stdio: {executable: /usr/sbin/nginx}", "nothing"),
        ("egress: {executable: /usr/bin/python3, host: 203.0.113.9, port: 443}", "nothing"),
        ("collector: {name: files-fanotify, state: dead}", "collector-dead"),
    ],
)
def test_a_fact_violates_what_its_description_leads_to(tmp_path: Path, given: str, expected: str) -> None:
    assert failures(tmp_path, fact(given, expected)) == ()


@pytest.mark.parametrize(("refused", "expected"), [("true", "egress-refused"), ("false", "egress-foreign")])
def test_a_connection_is_what_became_of_it(tmp_path: Path, refused: str, expected: str) -> None:
    listing = POLICIES.replace("mode: enforce", "mode: enforce\n  egress: {allowed: [10.0.0.0/8], deny: required}")
    to = f"{{executable: /usr/bin/python3, host: 203.0.113.9, port: 443, refused: {refused}}}"
    assert failures(tmp_path, fact(f"egress: {to}", expected), policies=listing) == ()
    assert failures(tmp_path, claims("", GOOD), policies=listing) == ()
    unfenced = "coverage: {fence: false}"
    weak = "tier: warning, reasons: [{signal: coverage-weak, subject: coverage.fence}]"
    assert failures(tmp_path, claims(unfenced, weak), policies=listing) == ()


ALERTING = POLICIES.replace(
    "mode: enforce",
    """mode: enforce
  detectors:
    sources: {tetragon: {silence: 1m}}
    alerts:
      - {detector: falco, priority: critical, class: tamper}
      - {detector: falco, tags: [shell], without: [Expected shell], class: drift}
      - {detector: tetragon, rules: ["file-*"], class: drift}""",
)


@pytest.mark.parametrize(
    ("alert", "expected"),
    [
        (
            "{detector: falco, rule: Rooted, priority: alert, executable: /bin/sh}",
            "{signal: detector-alert, subject: /bin/sh, class: tamper}",
        ),
        ("{detector: falco, rule: Rooted, priority: warning}", "nothing"),
        (
            "{detector: falco, rule: Shell, priority: notice, tags: [net, shell]}",
            "{signal: detector-alert, class: drift}",
        ),
        ("{detector: falco, rule: Expected shell, priority: notice, tags: [shell]}", "nothing"),
        ("{detector: falco, rule: Rooted, priority: alert, named: false}", "nothing"),
        ("{detector: tetragon, rule: file-writes}", "{signal: detector-alert, subject: file-writes, class: drift}"),
        ("{detector: tetragon, rule: connects, text: to 203.0.113.9}", "nothing"),
    ],
)
def test_an_alert_is_what_policy_says_of_it(tmp_path: Path, alert: str, expected: str) -> None:
    assert failures(tmp_path, fact(f"alert: {alert}", expected), policies=ALERTING) == ()
    assert failures(tmp_path, fact(f"alert: {alert}", "nothing")) == (), "a policy that says nothing observes"


def test_an_alert_that_names_nobody_is_this_workloads_where_policy_takes_it(tmp_path: Path) -> None:
    taking = ALERTING.replace("  detectors:\n", "  detectors:\n    unnamed: ours\n")
    unnamed = fact("alert: {detector: falco, rule: Rooted, priority: alert, named: false}", "detector-alert")
    assert failures(tmp_path, unnamed, policies=taking) == ()


@pytest.mark.parametrize("alert", ["{detector: falco, rule: x}", "{detector: tetragon, rule: x, priority: alert}"])
def test_an_alert_has_a_priority_as_its_detector_states_one(tmp_path: Path, alert: str) -> None:
    with pytest.raises(InvalidConfiguration, match="states a priority, and none of Tetragon's does"):
        trying(tmp_path, case(f"fact: {{alert: {alert}}}, expect: {{violates: nothing}}"))


def test_a_detector_that_policy_requires_is_heard_unless_the_case_says_otherwise(tmp_path: Path) -> None:
    assert failures(tmp_path, claims("", GOOD), policies=ALERTING) == ()
    unheard = "reasons: [{signal: detector-silent, subject: detectors.tetragon}]"
    assert failures(tmp_path, claims("coverage: {silent: [tetragon]}", unheard), policies=ALERTING) == ()
    gone = fact("collector: {name: detectors.tetragon, state: dead}", "detector-silent")
    assert failures(tmp_path, gone, policies=ALERTING) == ()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (claims("", "tier: warning"), "tier is affirming, where warning is expected"),
        (claims("", "opens: false"), "traffic is open, where it is to be closed"),
        (claims("", "reasons: [file-modified]"), "file-modified is expected, and not found"),
        (claims("files: {/srv/app/x: changed}", "reasons: []"), "file-unreferenced (drift) of /srv/app/x"),
        (
            claims("files: {/srv/app/x: changed}", "reasons: [{signal: file-unreferenced, class: tamper}]"),
            "file-unreferenced as tamper is expected, and not found",
        ),
        (
            claims("files: {/srv/app/x: changed}", "reasons: [{signal: file-unreferenced, subject: /srv/app/y}]"),
            "file-unreferenced of /srv/app/y is expected",
        ),
        (fact("execution: {path: /tmp/x}", "nothing"), "it violates execution-foreign"),
        (fact("execution: {path: /usr/bin/python3}", "execution-foreign"), "is expected, and not found"),
    ],
)
def test_what_comes_out_otherwise_fails_and_says_how(tmp_path: Path, body: str, words: str) -> None:
    assert any(words in each for each in failures(tmp_path, body))


def test_rules_are_evaluated_of_what_a_case_describes(tmp_path: Path) -> None:
    ruled = POLICIES.replace(
        "mode: enforce",
        "mode: enforce\n  rules:\n    noRoot: {that: processes.root == 0, message: no root, class: tamper}",
    )
    assert failures(tmp_path, claims("", GOOD), policies=ruled) == ()
    rooted = "processes: [{executable: /usr/bin/python3, uid: 0}]"
    expected = "tier: contraindicated, reasons: [{signal: rule-failed, subject: rule noRoot, class: tamper}]"
    assert failures(tmp_path, claims(rooted, expected), policies=ruled) == ()


def test_in_observe_and_audit_traffic_flows_whatever_the_verdict(tmp_path: Path) -> None:
    auditing = POLICIES.replace("mode: enforce", "mode: audit")
    body = claims("processes: [/tmp/payload]", "tier: contraindicated, opens: true")
    assert failures(tmp_path, body, policies=auditing) == ()


def test_references_expire_only_for_a_case_that_says_when_it_is(tmp_path: Path) -> None:
    expiring = POLICIES.replace("spec:\n  files:\n", "spec:\n  expires: 2026-06-01T00:00:00Z\n  files:\n")
    early, late = "at: 2026-05-31T23:59:59Z", "at: 2026-06-01T00:00:00Z"
    assert failures(tmp_path, case(f"expect: {{{GOOD}}}"), policies=expiring) == ()
    assert failures(tmp_path, case(f"{early}, expect: {{{GOOD}}}"), policies=expiring) == ()
    gone = case(f"{late}, expect: {{tier: none, reasons: [references-expired]}}")
    assert failures(tmp_path, gone, policies=expiring) == ()


def test_of_several_versions_the_one_that_is_named_is_there_as_a_whole(tmp_path: Path) -> None:
    rolling = POLICIES.replace(
        "  executables:",
        f"  versions:\n"
        f"    v1: {{files: {{/srv/app/one: {{digests: [sha256:{A}]}}}}}}\n"
        f"    v2: {{files: {{/srv/app/two: {{digests: [sha256:{B}]}}}}}}\n"
        f"  executables:",
    )
    assert failures(tmp_path, claims("", GOOD), policies=rolling) == ()
    assert failures(tmp_path, claims("version: v2", GOOD), policies=rolling) == ()
    mixed = claims("version: v2, files: {/srv/app/one: referenced}", "reasons: [file-versions-mixed]")
    assert failures(tmp_path, mixed, policies=rolling) == ()


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        (case("claims: {fils: {}}, expect: {tier: none}"), "6:50", "Did you mean 'files'?"),
        (case("expect: {teir: none}"), "6:50", "Did you mean 'tier'?"),
        (case("expect: {tier: good}"), "6:50", "a tier is none, affirming"),
        (case("expect: {}"), "6:7", "expected a tier, opens or reasons"),
        (case("claims: {}, expect: {violates: nothing}"), "6:7", "expected a tier, opens or reasons"),
        (case("fact: {}, expect: {violates: nothing}"), "6:41", "exactly one of file, execution"),
        (
            case("expect: {reasons: [file-modifed]}"),
            "6:60",
            "there is no signal 'file-modifed'; did you mean 'file-modified'?",
        ),
        (case("claims: {files: {/x: nothing}}, expect: {tier: none}"), "6:62", "a content is referenced, changed"),
        (case("claims: {}, fact: {execution: {path: /x}}, expect: {tier: none}"), "6:7", "not both"),
        ("{name: a case, registration: wbe, expect: {tier: none}}", "6:7", "there is no registration 'wbe'"),
        ("{name: a case, registration: lonely/api, expect: {tier: none}}", "6:7", "no policy is for"),
        (case("claims: {proxy: {filters: []}}, expect: {tier: none}"), "6:7", "no measurer could send this"),
    ],
)
def test_a_case_that_cannot_be_tried_is_a_mistake_with_its_place(
    tmp_path: Path, body: str, place: str, words: str
) -> None:
    asking = POLICIES.replace("mode: enforce", "mode: enforce\n  layers: {proxy: {}}")
    with pytest.raises(InvalidConfiguration) as raised:
        trying(tmp_path, body, policies=asking)
    assert raised.value.where == f"{tmp_path}/tests.yaml:{place}"
    assert words in raised.value.sentence


def test_cases_are_found_in_and_below_a_folder_beside_documents_of_other_kinds(tmp_path: Path) -> None:
    written(tmp_path, claims("", GOOD))
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "t.yml").write_text(
        "kind: PolicyTest\nmetadata: {name: deep}\nspec:\n  policies: [../policies/p.yaml]\n"
        f"  cases: [{claims('', GOOD)}]\n"
    )
    assert [each.test.metadata.name for each in read(tmp_path)] == ["deep", "web"]


def test_a_folder_without_cases_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="no PolicyTest is there"):
        list(read(tmp_path))


def test_junit_tells_each_case_with_its_place_and_the_failures_of_those_that_failed(tmp_path: Path) -> None:
    bad = claims('files: {"/srv/app/\\e<x>": changed}', "reasons: []")
    root = ElementTree.fromstring(junit(trying(tmp_path, claims("", GOOD), bad)))  # noqa: S314 - made a moment ago
    (suite,) = root
    assert (root.attrib["tests"], root.attrib["failures"], suite.attrib["name"]) == ("2", "1", "web")
    good, failed = suite
    assert (good.attrib["name"], good.attrib["line"], list(good)) == ("a case", "6", [])
    (failure,) = failed
    assert "/srv/app/\ufffd<x>" in (failure.text or "")
