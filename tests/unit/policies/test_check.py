"""What `proofbeat policy check` says of documents: everything, each with its place, and nothing of what is well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policies.author.check import Report, Terms, check
from policies.author.remarks import MEANINGS, Check, Level
from policies.author.sarif import sarif

POLICY = """\
kind: AttestationPolicy
metadata: {name: hardened}
spec:
  mode: enforce
  interval: 10s
  freshness: 60s
  files: {include: [/srv/app], volatile: ["*.log"]}
"""
REFERENCES = f"""\
kind: ReferenceValues
metadata: {{name: web}}
spec: {{files: {{/srv/app/main.py: {{digests: [sha256:{"a" * 64}]}}}}}}
"""
REGISTRATION = """\
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
"""
WELL = (POLICY, REFERENCES, REGISTRATION)
LONELY = REGISTRATION.replace("name: web", "name: web, namespace: lonely").replace("org/web", "org/lonely/web")


def checked(folder: Path, *documents: str, terms: Terms | None = None) -> Report:
    (folder / "p.yaml").write_text("---\n".join(documents))
    return check([folder], terms)


def told(folder: Path, *documents: str) -> list[tuple[Check, int, int]]:
    return [(each.check, each.place.line, each.place.column) for each in checked(folder, *documents).remarks]


def policy(name: str, spec: str, namespace: str = "default") -> str:
    return f"kind: AttestationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"


def test_of_documents_that_are_well_nothing_is_said(tmp_path: Path) -> None:
    report = checked(tmp_path, *WELL)
    assert report.remarks == ()
    assert set(report.policies.governing) == {"web"}


def test_every_error_of_every_file_is_told_and_what_depends_on_them_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY.replace("10s", "10").replace("mode: enforce", "mood: enforce"))
    (tmp_path / "b.yaml").write_text("a: [\n")
    (tmp_path / "c.yaml").write_text(REGISTRATION)
    remarks = check([tmp_path, tmp_path / "absent.yaml"]).remarks
    assert {each.level for each in remarks} == {Level.ERROR}
    assert [str(each.place).removeprefix(f"{tmp_path}/") for each in remarks] == [
        "a.yaml:4:3",
        "a.yaml:5:3",
        "absent.yaml",
        "b.yaml:2:1",
    ]
    assert remarks[0].mend == "Did you mean 'mode'?"


def test_identities_that_are_not_ones_own_are_told(tmp_path: Path) -> None:
    stranger = REGISTRATION.replace("name: web", "name: mine, namespace: evil")
    (shared,) = checked(tmp_path, *WELL, stranger).remarks
    assert (shared.level, "'evil/mine'" in shared.text) == (Level.ERROR, True)
    (foreign,) = checked(tmp_path, *WELL, terms=Terms(trust_domain="town.example")).remarks
    assert (foreign.level, "'town.example'" in foreign.text) == (Level.ERROR, True)


def test_a_registration_whose_references_are_missing_hides_no_other_remark(tmp_path: Path) -> None:
    api = REGISTRATION.replace("name: web", "name: api").replace("references: web", "references: api")
    assert told(tmp_path, *WELL, api, policy("idle", "{selector: {registrations: [ap]}}")) == [
        (Check.INVALID, 19, 44),
        (Check.SELECTS_NOTHING, 23, 19),
    ]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ((policy("a", "{deadman: 1s}"), policy("b", "{deadman: 2s}")), [(Check.CONFLICT, 23, 8)]),
        ((policy("a", "{deadman: 1s}"), policy("b", "{deadman: 1s}")), []),
        ((policy("a", "{deadman: 1s}", "proofbeat-system"), policy("b", "{deadman: 2s}")), []),
        ((policy("a", "{selector: {registrations: [wbe]}}"),), [(Check.SELECTS_NOTHING, 19, 19)]),
        ((policy("a", "{selector: {registrations: [web, wbe]}}"),), [(Check.SELECTS_NOTHING, 19, 19)]),
        ((policy("a", "{selector: {matchLabels: {app: web}}}"),), [(Check.SELECTS_NOTHING, 19, 8)]),
        ((policy("a", "{deadman: 1s}", "elsewhere"),), [(Check.UNUSED, 17, 1)]),
        ((policy("a", "{deadman: 1s}", "proofbeat-system"),), []),
        ((REFERENCES.replace("name: web", "name: old"),), [(Check.UNUSED, 17, 1)]),
        ((LONELY,), [(Check.UNRULED, 17, 1)]),
        ((policy("a", "{files: {volatile: [/var/log/*]}}"),), [(Check.UNREACHABLE, 19, 16)]),
        ((policy("a", "{files: {volatile: [/srv/*/log, '/s*']}}"),), []),
        ((policy("a", "{proxy: {requireDrainNow: true}}"),), [(Check.UNREACHABLE, 19, 16)]),
        ((policy("a", "{layers: {proxy: {}}, proxy: {requireDrainNow: true}}"),), []),
        ((policy("a", "{rules: {one: {that: proxy.seated, message: m}}}"),), [(Check.UNREACHABLE, 19, 16)]),
        ((policy("a", "{rules: {one: {that: files.count > 1, message: m}}}"),), []),
        ((policy("a", "{rules: {one: {that: proxy.seated || files.count > 1, message: m}}}"),), []),
        ((policy("a", "{layers: {image: {}}}"),), [(Check.UNMEETABLE, 19, 17)]),
        ((policy("a", "{layers: {image: {demand: best-effort}}}"),), []),
        ((policy("a", "{freshness: 49s}"),), [(Check.CONFLICT, 6, 3), (Check.FRESHNESS_SHORT, 19, 8)]),
    ],
)
def test_each_doubt_is_told_at_its_place(
    tmp_path: Path, documents: tuple[str, ...], expected: list[tuple[Check, int, int]]
) -> None:
    assert told(tmp_path, *WELL, *documents) == expected


@pytest.mark.parametrize(
    ("files", "exempt"),
    [
        ("{include: [/srv/app], volatile: ['**']}", True),
        ("{include: [/srv/app], volatile: ['*']}", True),
        ("{include: [/srv/app], volatile: ['/srv/**']}", True),
        ("{include: [/srv/app], caches: ['**']}", True),
        ("{include: [/srv/app], configuration: ['**']}", False),
        ("{include: [/srv/app], volatile: ['/srv/app/*']}", False),
        ("{include: [/srv/app], volatile: ['*.log']}", False),
        ("{include: [/srv/app], volatile: ['**'], within: [{volatile: ['*.log']}]}", False),
        ("{include: []}", True),
    ],
)
def test_exemptions_that_leave_nothing_to_measure_are_told(tmp_path: Path, files: str, exempt: bool) -> None:
    own = POLICY.replace('{include: [/srv/app], volatile: ["*.log"]}', files)
    found = [check for check, _, _ in told(tmp_path, own, REFERENCES, REGISTRATION)]
    assert (Check.MEASURES_NOTHING in found) is exempt


@pytest.mark.parametrize(
    ("files", "exempt"),
    [
        ("{include: [/srv/app], caches: ['__pycache__/*']}", True),
        ("{include: [/srv/app], caches: ['**/__pycache__/*']}", True),
        ("{include: [/srv/app], caches: ['/srv/app/__pycache__/**']}", True),
        ("{include: [/srv/app], volatile: ['*.so']}", True),
        ("{include: [/srv/app], projected: ['/srv/app/*/*.js']}", True),
        ("{include: [/srv/app], configuration: ['*.py']}", False),
        ("{include: [/srv/app], caches: [/srv/app/cache/**]}", False),
        ("{include: [/srv/app], volatile: ['*.so'], within: [{volatile: ['*.log']}]}", False),
    ],
)
def test_code_that_is_exempt_by_its_name_is_told(tmp_path: Path, files: str, exempt: bool) -> None:
    own = POLICY.replace('{include: [/srv/app], volatile: ["*.log"]}', files)
    found = told(tmp_path, own, REFERENCES, REGISTRATION)
    assert found == ([(Check.CODE_EXEMPT, 7, found[0][2])] if exempt else [])


def test_a_reference_for_what_may_never_be_executed_is_told(tmp_path: Path) -> None:
    runs = REFERENCES.replace("{files: {", f"{{executables: {{/srv/app/run.log: [{'a' * 64}]}}, files: {{")
    assert told(tmp_path, POLICY, runs, REGISTRATION) == [(Check.UNREACHABLE, 11, 22)]
    elsewhere = runs.replace("run.log", "run")
    assert told(tmp_path, POLICY, elsewhere, REGISTRATION) == []


def test_references_for_what_nobody_reads_are_told(tmp_path: Path) -> None:
    more = REFERENCES.replace("{files: {", f"{{files: {{/srv/app/a.log: {{digests: [{'b' * 64}]}}, ")
    (remark,) = checked(tmp_path, POLICY, more, REGISTRATION).remarks
    assert remark.text.startswith("1 of 2 referenced files are judged by no policy, /srv/app/a.log")


def test_a_statement_that_matters_to_one_of_two_is_not_idle(tmp_path: Path) -> None:
    api = REGISTRATION.replace("name: web", "name: api")
    only = policy("only", "{selector: {registrations: [api]}, layers: {proxy: {}}}")
    asking = policy("asking", "{proxy: {requireDrainNow: true}}")
    assert told(tmp_path, *WELL, api, asking, only) == []


def test_references_that_no_policy_measures_are_counted_and_one_is_named(tmp_path: Path) -> None:
    more = REFERENCES.replace("{files: {", f"{{files: {{/etc/passwd: {{digests: [{'b' * 64}]}}, ")
    (remark,) = checked(tmp_path, POLICY, more, REGISTRATION).remarks
    assert (remark.check, remark.place.line, remark.place.column) == (Check.UNREACHABLE, 11, 16)
    assert remark.text.startswith("1 of 2 referenced files are judged by no policy, /etc/passwd")


def test_what_a_lease_must_outlive_is_the_authors_to_state(tmp_path: Path) -> None:
    assert checked(tmp_path, *WELL, terms=Terms(failover=25.0)).remarks == ()
    (remark,) = checked(tmp_path, *WELL, terms=Terms(failover=25.001)).remarks
    assert remark.check is Check.FRESHNESS_SHORT


def test_reference_values_that_something_inherits_are_used(tmp_path: Path) -> None:
    base = "kind: ReferenceValues\nmetadata: {name: base}\n"
    far = "kind: ReferenceValues\nmetadata: {name: far, namespace: proofbeat-system}\n"
    heir = REFERENCES.replace("{files:", "{inherits: [base, proofbeat-system/far], files:")
    assert told(tmp_path, POLICY, heir, REGISTRATION, base, far) == []
    assert {check for check, _, _ in told(tmp_path, *WELL, base, far)} == {Check.UNUSED}


@pytest.mark.parametrize(
    ("now", "expected"),
    [(0.0, []), (1_800_000_000 - 14 * 86_400, [Check.EXPIRING]), (1_800_000_000, [Check.EXPIRED])],
)
def test_references_are_told_of_when_they_expire_soon_or_have(
    tmp_path: Path, now: float, expected: list[Check]
) -> None:
    expiring = REFERENCES.replace("{files:", "{expires: 2027-01-15T08:00:00Z, files:")
    remarks = checked(tmp_path, POLICY, expiring, REGISTRATION, terms=Terms(now=now)).remarks
    assert [each.check for each in remarks] == expected
    assert all((each.place.line, each.place.column) == (11, 8) for each in remarks)


def test_policies_alone_are_checked_for_what_they_are_without_anybody_to_rule(tmp_path: Path) -> None:
    assert told(tmp_path, POLICY) == []
    assert told(tmp_path, POLICY.replace("60s", "20s")) == [(Check.FRESHNESS_SHORT, 6, 3)]


def test_documents_that_name_each_other_without_end_are_read_in_no_time(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{this}: &{this} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, this in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    remarks = checked(tmp_path, bomb + "kind: AttestationPolicy\nmetadata: {name: *k}\nspec: {mode: *k}\n").remarks
    assert {each.check for each in remarks} == {Check.INVALID}


def test_every_check_has_its_meaning() -> None:
    assert set(MEANINGS) == set(Check)


def test_sarif_has_all_that_the_standard_requires_and_names_files_from_the_folder_that_is_checked(
    tmp_path: Path,
) -> None:
    report = checked(tmp_path, *WELL, policy("a", "{freshness: 49s}"), "kind: Nonsense\n")
    document = sarif(report.remarks, "1.2.3", tmp_path)
    assert (document["version"], set(document)) == ("2.1.0", {"$schema", "version", "runs"})
    (run,) = document["runs"]
    driver: dict[str, Any] = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("proofbeat", "1.2.3")
    assert [rule["id"] for rule in driver["rules"]] == list(Check)
    for result, remark in zip(run["results"], report.remarks, strict=True):
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == remark.check
        assert result["level"] in ("error", "warning")
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"] == {
            "artifactLocation": {"uri": "p.yaml"},
            "region": {"startLine": remark.place.line, "startColumn": remark.place.column},
        }
