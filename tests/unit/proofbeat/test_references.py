"""`proofbeat references`: what a build server and an operator see of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestation.quantities import instant
from policies.author.references.sources import Source
from policies.model.load import load
from proofbeat.references import Kind
from tests.unit.policies.references.packing import Layout, Put, digest, docker_saved, linked, packed

Run = Callable[..., tuple[int, str, str]]
BASE = packed(
    Put("bin/sh", linked(b"/lib/ld.so"), mode=0o755), Put("lib/ld.so", b"loader", mode=0o755), Put("etc/gone", b"1")
)
APP = packed(Put("srv/app/main", b"#!/bin/sh\n", mode=0o755), Put("etc/.wh.gone", b""), Put("dev/null", device=True))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def ran(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-P", "-m", "proofbeat", "references", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return ran


@pytest.fixture
def image(tmp_path: Path) -> str:
    Layout().add(BASE, APP, config={"Cmd": ["/srv/app/main"]}).archive(tmp_path / "image.tar")
    return "image.tar"


def document(text: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(text)
    return value


def test_an_image_becomes_a_document_on_stdout_and_what_was_done_is_told_on_stderr(run: Run, image: str) -> None:
    code, out, err = run("build", "web", image)
    assert code == 0, err
    spec = document(out)["spec"]
    assert set(spec["files"]) == {"/bin/sh", "/lib/ld.so", "/srv/app/main"}
    assert set(spec["executables"]) == {"/srv/app/main", "/bin/sh", "/lib/ld.so"}
    assert "web: 3 files and 3 executables from oci linux/amd64 sha256:" in err
    assert "starts    /srv/app/main" in err
    assert "skipped   1 device" in err


def test_the_object_for_programs_says_everything_that_was_told(run: Run, image: str, tmp_path: Path) -> None:
    code, out, err = run(
        "build", "web", image, "--json", "-o", "web.yaml", "--version", "1.5", "--expires", "2030-01-01T00:00:00Z"
    )
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert set(said) == {
        "name", "source", "platform", "digest", "files", "executables", "versions", "inherits", "without", "started",
        "skipped", "proposed", "notes", "dpkg", "written",
    }  # fmt: skip
    assert (said["source"], said["files"], said["written"]) == ("oci", 3, "web.yaml")
    assert said["skipped"]["device"]["examples"] == ["/dev/null"]
    written = document((tmp_path / "web.yaml").read_text())
    assert written["metadata"]["labels"] == {"version": "1.5"}
    assert written["spec"]["expires"] == "2030-01-01T00:00:00Z"


def test_every_kind_of_source_can_be_named() -> None:
    assert {each.value for each in Kind} == {each.value for each in Source}


def test_what_docker_saved_and_an_archive_and_a_folder_state_the_same(run: Run, tmp_path: Path) -> None:
    (tmp_path / "saved.tar").write_bytes(packed(*docker_saved({"layer.tar": BASE})))
    (tmp_path / "plain.tar").write_bytes(BASE)
    (tmp_path / "folder").mkdir()
    subprocess.run(["tar", "-x", "-p", "-C", tmp_path / "folder", "-f", tmp_path / "plain.tar"], check=True)
    said = {
        run("build", "web", source, "--include", "/bin", "--include", "/lib")[1]
        for source in ("saved.tar", "plain.tar", "folder")
    }
    assert len(said) == 1
    assert f"sha256:{digest(b'loader')}" in said.pop()


def test_what_is_built_is_what_an_authority_reads_with_what_it_is_based_on(
    run: Run, image: str, tmp_path: Path
) -> None:
    (tmp_path / "base.tar").write_bytes(BASE)
    policies = tmp_path / "policies"
    policies.mkdir()
    assert run("build", "debian", "base.tar", "--namespace", "proofbeat-system", "-o", "policies/base.yaml")[0] == 0
    code, _, err = run(
        "build",
        "web",
        image,
        "--inherits",
        "proofbeat-system/debian",
        "--policies",
        "policies",
        "-o",
        "policies/web.yaml",
    )
    assert code == 0, err
    assert "beyond    proofbeat-system/debian, without 1 of its files" in err
    assert document((policies / "web.yaml").read_text())["spec"]["files"].keys() == {"/srv/app/main"}
    (policies / "rest.yaml").write_text(REST)
    references = load([policies]).governing["web"].references
    assert references.spec.files.keys() == {"/bin/sh", "/lib/ld.so", "/srv/app/main"}


REST = """\
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
---
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: all}
"""


def test_a_roll_out_from_the_old_version_to_the_new_one(run: Run, tmp_path: Path) -> None:
    for version, content in (("1.4", b"old"), ("1.5", b"new")):
        (tmp_path / f"{version}.tar").write_bytes(packed(Put("app", content), Put("same", b"")))
    assert run("build", "web", "1.4.tar", "--version", "1.4", "-o", "web.yaml")[0] == 0
    assert run("build", "web", "1.5.tar", "--version", "1.5", "--also", "web.yaml", "-o", "both.yaml")[0] == 0
    both = document((tmp_path / "both.yaml").read_text())["spec"]
    assert (set(both["files"]), set(both["versions"])) == ({"/same"}, {"1.4", "1.5"})
    assert run("build", "web", "1.5.tar", "--version", "1.5", "-o", "new.yaml")[0] == 0
    code, merged, _ = run("merge", "web.yaml", "new.yaml")
    assert (code, merged) == (0, (tmp_path / "both.yaml").read_text())
    code, left, _ = run("merge", "both.yaml", "--drop", "1.4")
    assert (code, left) == (0, (tmp_path / "new.yaml").read_text())


def test_signing_and_verifying(run: Run, image: str, tmp_path: Path) -> None:
    assert run("build", "web", image, "-o", "web.yaml")[0] == 0
    for name in ("release", "other"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / f"{name}.pem"], check=True)
        subprocess.run(
            ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"], check=True, cwd=tmp_path
        )
    assert run("verify", "web.yaml", "--key", "release.pub")[0] == 1
    code, out, err = run("sign", "web.yaml", "--key", "release.pem")
    assert code == 0, err
    assert "web.yaml.jws: signed, with 1 ReferenceValues" in out
    assert "web never expires: no authority with trusted keys reads it so" in out
    assert run("verify", "web.yaml", "--key", "other.pub", "--key", "release.pub")[:2] == (
        0,
        "web.yaml: signed by release.pub\n",
    )
    assert run("verify", "web.yaml", "--key", "other.pub")[:2] == (
        1,
        "web.yaml: NOT signed as it is by any of these keys\n",
    )
    (tmp_path / "web.yaml").write_text((tmp_path / "web.yaml").read_text() + "# changed\n")
    code, out, _ = run("verify", "web.yaml", "--key", "release.pub", "--json")
    assert (code, json.loads(out)) == (1, {"signed": False, "files": {"web.yaml": None}})


def test_files_that_were_altered_since_they_were_packaged_are_the_answer_no(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "var/lib/dpkg/info").mkdir(parents=True)
    (root / "var/lib/dpkg/info/a.md5sums").write_text("0" * 32 + "  app\n")
    (root / "app").write_bytes(b"1")
    code, out, err = run("build", "web", "root", "--include", "/app", "--check-dpkg", "root")
    assert code == 1
    assert "ALTERED   /app" in err
    assert "/app" in document(out)["spec"]["files"], "it is written all the same, for whoever knows why"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "web"), "say either what to build from, or --pid"),
        (("build", "web", "x", "--pid", "1"), "say either what to build from, or --pid"),
        (("build", "web", "--pid", "1"), "--pid takes --include"),
        (("build", "web", "x", "--json"), "the document needs a place"),
        (("build", "web", "x", "--inherits", "base"), "--inherits and --policies go together"),
        (("build", "web", "absent"), "absent: it cannot be read: No such file or directory"),
        (("build", "web", "/dev/null"), "no archive, image, package or document"),
        (("build", "Web", "image.tar"), "'Web' is no name"),
        (("build", "web", "image.tar", "--at", "srv"), "--at: 'srv' is no absolute path"),
        (("build", "web", "image.tar", "--at", "/srv/../etc"), "--at: '/srv/../etc' is no absolute path"),
        (("build", "web", "image.tar", "--expires", "soon"), "--expires: 'soon' is no time"),
        (("build", "web", "image.tar", "--platform", "linux/arm64"), "0 images that would do"),
        (("build", "web", "image.tar", "image.tar"), "2 sources"),
        (("build", "web", "image.tar", "--most-bytes", "100"), "more than 100 bytes when it is unpacked"),
        (("build", "web", "image.tar", "--inherits", "base", "--policies", "."), "no ReferenceValues 'base' is there"),
        (("build", "web", "image.tar", "--from", "deb"), "no Debian package"),
        (("merge", "web.yaml", "web.yaml"), "it does not say of which version it is"),
        (("merge", "image.tar"), "image.tar"),
        (("sign", "web.yaml", "--key", "web.yaml"), "no key on P-256 or Ed25519"),
        (("sign", "absent", "--key", "absent"), "absent"),
        (("verify", "absent", "--key", "absent"), "absent"),
    ],
)
def test_each_mistake_is_one_line_and_exit_code_2(
    run: Run, image: str, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "web.yaml").write_text("kind: ReferenceValues\nmetadata: {name: web}\n")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_an_end_that_is_given_as_a_time_from_now_is_that_far_away(run: Run, image: str) -> None:
    ends = instant(document(run("build", "web", image, "--expires", "30d")[1])["spec"]["expires"])
    again = instant(document(run("build", "web", image, "--expires", "31d")[1])["spec"]["expires"])
    assert 86_400 <= again - ends < 86_400 + 60


PAGE = (Path(__file__).parents[3] / "docs/references.md").read_text()


def test_the_page_names_every_option_and_every_key(run: Run, image: str) -> None:
    code, out, _ = run("build", "web", image, "--json", "-o", "web.yaml")
    assert code == 0
    assert [key for key in json.loads(out) if not re.search(rf"[`\s]{key}[`\s]", PAGE)] == []
    options = set(re.findall(r"--[a-z-]+", run("build", "--help")[1])) - {
        "--help",
        "--output",
        "--namespace",
        "--envoy",
    }
    assert {"--platform", "--check-dpkg"} <= options
    assert options - set(re.findall(r"--[a-z-]+", PAGE)) == set()


def test_every_kind_of_source_is_on_the_page() -> None:
    assert f"--from {'|'.join(kind.value for kind in Kind)}" in PAGE
