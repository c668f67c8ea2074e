"""`proofbeat policy` as an author runs it: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policies.model.signing import beside, sign
from tests.system.authority.town import policies, town

CASES = """\
kind: PolicyTest
metadata: {name: town}
spec:
  policies: [policies.yaml]
  cases:
    - {name: as it is referenced, registration: web, expect: {tier: affirming, opens: true, reasons: []}}
    - name: a foreign program
      registration: web
      fact: {execution: {path: /tmp/payload}}
      expect: {violates: {signal: execution-foreign, class: tamper}}
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "proofbeat", "policy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    (tmp_path / "policies.yaml").write_text(policies())
    return tmp_path / "policies.yaml"


def test_check_says_yes_to_what_is_well_in_words_and_as_one_object(documents: Path) -> None:
    said = run("check", documents)
    assert (said.returncode, said.stderr) == (0, "")
    assert "web: spiffe://town.example/web under hardened (enforce), against web" in said.stdout
    told = json.loads(run("check", documents, "--json").stdout)
    assert set(told) == {"ok", "errors", "warnings", "remarks", "registrations", "unruled"}
    assert [each["name"] for each in told["registrations"]] == ["api", "web"]


def test_check_tells_errors_by_exit_code_2_and_warnings_by_1_where_that_is_asked_for(documents: Path) -> None:
    documents.write_text(policies(freshness="30s"))
    assert run("check", documents).returncode == 0
    assert run("check", documents, "--strict").returncode == 1
    assert run("check", documents, "--strict", "--failover", "0s", "--skew", "0s").returncode == 0
    documents.write_text(policies(mode="strict", interval="10"))
    said = run("check", documents, "--json")
    assert said.returncode == 2
    assert "2 errors" in said.stderr
    assert [each["line"] for each in json.loads(said.stdout)["remarks"]] == [6, 7]


def test_check_writes_sarif_whatever_it_finds(documents: Path) -> None:
    documents.write_text(policies(mode="strict"))
    file = documents.with_suffix(".sarif")
    assert run("check", documents, "--sarif", file).returncode == 2
    (result,) = json.loads(file.read_text())["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("invalid", "error")
    assert run("check", documents, "--sarif", documents / "impossible").returncode == 2


def test_explain_names_the_line_of_each_value_from_documents(documents: Path) -> None:
    said = run("explain", "web", "--policies", documents)
    assert said.returncode == 0
    (line,) = (each for each in said.stdout.splitlines() if each.startswith("interval"))
    assert line.split() == ["interval", "10s", "hardened", f"{documents}:7:3"]
    told = json.loads(run("explain", "spiffe://town.example/api", "--policies", documents, "--json").stdout)
    assert set(told) == {"registration", "spiffe_id", "policies", "values", "conflicts"}
    assert run("explain", "nobody", "--policies", documents).returncode == 2
    assert run("explain", "web").returncode == 2


def test_test_tries_the_cases_of_a_folder_and_writes_junit(documents: Path) -> None:
    (documents.parent / "cases.yaml").write_text(CASES)
    junit = documents.with_suffix(".xml")
    said = run("test", documents.parent, "--junit", junit)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.endswith("2 cases, 0 failed\n")
    assert ElementTree.parse(junit).getroot().attrib["tests"] == "2"  # noqa: S314 - written a moment ago
    (documents.parent / "cases.yaml").write_text(CASES.replace("tamper", "drift"))
    failing = run("test", documents.parent, "--json")
    told = json.loads(failing.stdout)
    assert (failing.returncode, told["ok"], told["cases"], told["failed"]) == (1, False, 2, 1)
    assert run("test", documents).returncode == 2


@pytest.mark.parametrize("asked", ["check", "test", "diff"])
def test_with_trusted_keys_reference_values_are_read_as_an_authority_with_these_reads_them(
    asked: str, documents: Path
) -> None:
    expiring = policies().replace("  executables:", "  expires: 2099-12-31T00:00:00Z\n  executables:")
    documents.write_text(expiring)
    cases, evidence = documents.with_name("cases.yaml"), documents.with_name("evidence")
    cases.write_text(CASES)
    evidence.mkdir()
    key, public = ed25519.Ed25519PrivateKey.generate(), documents.with_name("release.pub")
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    commands: dict[str, list[str | Path]] = {
        "check": ["check", documents],
        "test": ["test", cases],
        "diff": ["diff", documents, documents, "--evidence", evidence],
    }
    command = commands[asked]

    unsigned = run(*command, "--trusted-key", public)
    assert unsigned.returncode == 2
    assert "policies.yaml.jws cannot be read" in unsigned.stdout + unsigned.stderr
    beside(documents).write_text(sign(expiring.encode(), key))
    signed, unasked = run(*command, "--trusted-key", public), run(*command)
    assert (signed.returncode, signed.stdout, signed.stderr) == (unasked.returncode, unasked.stdout, unasked.stderr)
    assert "policies.yaml.jws" not in signed.stdout + signed.stderr


def test_a_trusted_key_that_is_none_is_told_with_its_file(documents: Path) -> None:
    said = run("check", documents, "--trusted-key", documents)
    assert said.returncode == 2
    assert f"{documents}: this is no public key on P-256 or Ed25519" in said.stderr
    absent = run("check", documents, "--trusted-key", documents.with_name("absent.pub"))
    assert "absent.pub: the key cannot be read: No such file or directory" in absent.stderr


def test_schema_prints_a_kind_and_knows_no_other() -> None:
    assert json.loads(run("schema", "WorkloadRegistration").stdout)["title"] == "WorkloadRegistration"
    said = run("schema", "Workload")
    assert said.returncode == 2
    assert "Known kinds" in said.stderr


def test_a_running_authority_explains_what_is_in_force_and_reads_its_policies_again(tmp_path: Path) -> None:
    def interval(admin: Path) -> str:
        told = json.loads(run("explain", "web", "--admin", admin, "--json").stdout)
        return str(next(each["value"] for each in told["values"] if each["place"] == "interval"))

    async def story() -> None:
        async with town(tmp_path) as where:
            admin = where.where.admin
            assert await asyncio.to_thread(interval, admin) == "10s"
            (tmp_path / "policies.yaml").write_text(policies(interval="5s"))
            again = await asyncio.to_thread(run, "reload", "--admin", admin)
            assert (again.returncode, again.stdout) == (0, "policy epoch 2 is in force\n")
            assert await asyncio.to_thread(interval, admin) == "5s"
            (tmp_path / "policies.yaml").write_text(policies(interval="5"))
            refused = await asyncio.to_thread(run, "reload", "--admin", admin, "--strict")
            assert refused.returncode != 0
            assert "policies.yaml:7:3" in refused.stderr
            assert await asyncio.to_thread(interval, admin) == "5s"

    asyncio.run(story())
