"""Typical mistakes at the command line: one line that says what, where and how to mend it, and the right exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ROOT = Path(__file__).parents[2]
PROOFBEAT = [sys.executable, "-P", "-m", "proofbeat"]


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([*PROOFBEAT, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """Settings that are right but for the authority, which nobody runs."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(_some_root())
    (tmp_path / "token").write_text("t")
    return {
        "trustDomain": "example.org",
        "authority": {"url": "https://127.0.0.1:9", "bundle": str(bundle)},
        "enrolment": {"joinTokenFile": str(tmp_path / "token")},
        "workload": {"pid": os.getpid()},
        "delivery": {"socket": str(tmp_path / "xds.sock")},
        "state": str(tmp_path / "state"),
    }


def sidecar(folder: Path, settings: dict[str, object], *more: str) -> tuple[int, str]:
    file = folder / "sidecar.yaml"
    file.write_text(yaml.safe_dump(settings))
    return run("sidecar", "-c", str(file), *more)


def _some_root() -> bytes:
    from sidecar.delivery import poison

    return poison.make(0.0).bundle


WITHOUT_LIBYAML = """\
import sys
sys.modules["yaml._yaml"] = None
from proofbeat.cli import main
main()
"""


@pytest.mark.parametrize(
    "command", [("policy", "check", "."), ("authority", "-c", "a.yaml"), ("sidecar", "-c", "a.yaml")]
)
def test_a_pyyaml_without_libyaml_is_told_where_yaml_is_read_and_how_to_get_it(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("kind: AttestationPolicy\nmetadata: {name: a}\n")
    code, said = without_libyaml(tmp_path, *command)
    assert code == 1
    assert said.startswith("proofbeat: yaml._yaml: this PyYAML was built without libyaml")
    assert "pip install" in said


def test_what_reads_no_yaml_does_without_libyaml_and_the_doctor_finds_it_lacking(tmp_path: Path) -> None:
    assert without_libyaml(tmp_path, "policy", "schema", "AttestationPolicy") == (0, "")
    code, said = without_libyaml(tmp_path, "doctor", "--json", out=tmp_path / "told.json")
    told = json.loads((tmp_path / "told.json").read_text())
    assert (code, said, told["works"]) == (1, "", False)
    assert [each["name"] for each in told["checks"] if each["health"] == "broken"] == ["libyaml"]


def without_libyaml(folder: Path, *arguments: str, out: Path = Path(os.devnull)) -> tuple[int, str]:
    command = [sys.executable, "-c", WITHOUT_LIBYAML, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with out.open("w") as stdout:
        done = subprocess.run(
            command,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
            env=environment,
        )
    return done.returncode, done.stderr


def test_a_workload_that_is_gone(tmp_path: Path, settings: dict[str, object]) -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    code, said = sidecar(tmp_path, {**settings, "workload": {"pid": ended.pid}})
    assert code == 1
    assert "proofbeat:" in said
    assert str(ended.pid) in said


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, settings: dict[str, object]) -> None:
    code, said = sidecar(tmp_path, {**settings, "workloads": {}})
    assert code == 2
    assert "Did you mean 'workload'?" in said


def test_a_socket_path_where_somebody_else_listens(tmp_path: Path, settings: dict[str, object]) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "xds.sock"))
        other.listen()
        code, said = sidecar(tmp_path, settings)
    assert code != 0
    assert "xds.sock" in said
    assert "Traceback" not in said


def test_a_trust_bundle_that_is_not_there(tmp_path: Path, settings: dict[str, object]) -> None:
    missing = str(tmp_path / "absent.pem")
    code, said = sidecar(tmp_path, {**settings, "authority": {"url": "https://127.0.0.1:9", "bundle": missing}})
    assert code == 2
    assert "absent.pem" in said


def test_a_settings_file_that_is_not_there(tmp_path: Path) -> None:
    code, said = run("sidecar", "-c", str(tmp_path / "absent.yaml"))
    assert code == 2
    assert "cannot be read" in said


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("policy check empty", "empty: no document is there. Name files, or folders of *.yaml"),
        ("policy check web.yaml --trust-domain spiffe://a", "'spiffe://a' is not a trust domain"),
        ("policy explain web --policies empty", "'web' is no registration that is ruled. None is ruled there."),
        ("policy test web.yaml", "web.yaml:1:1: AttestationPolicy is no PolicyTest. Name the file of cases"),
        ("references build web empty --expires 30", "--expires: '30' is no time. Write a duration, 30d,"),
        ("references build web empty --expires 2020-01-01T00:00:00Z", "--expires: 2020-01-01T00:00:00Z is over"),
        (
            "references build web empty --inherits a --policies web.yaml",
            "no ReferenceValues 'a' is there. There are: n",
        ),
        ("references build web empty -o absent/a", "absent/a: it cannot be written: No such file or directory. Make"),
        ("references sign web.yaml --key key.pub", "key.pub: this is the public half of a key. Signing takes the"),
        ("breakglass verify web.yaml --policies web.yaml", "web.yaml: break-glass order: it does not parse"),
        ("status --admin absent.sock", "absent.sock: the authority does not answer: No such file or directory. Start"),
        ("status --admin web.yaml", "web.yaml: the authority does not answer: Connection refused. Start it with"),
    ],
)
def test_what_is_named_and_is_not_that_is_told_with_what_would_be(
    command: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("empty").mkdir()
    Path("web.yaml").write_text("kind: AttestationPolicy\nmetadata: {name: web}\n")
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    Path("key.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    code, said = run(*command.split())
    assert code in (1, 2)
    assert told in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("folder", "at", "note"),
    [
        ("empty", "/srv", "No file is stated: every file that a policy includes is a finding."),
        ("app", None, "Its paths begin at /: say by --at in which folder the workload has it."),
    ],
)
def test_reference_values_that_are_hardly_meant_are_built_with_a_note(
    folder: str, at: str | None, note: str, tmp_path: Path
) -> None:
    for each in ("empty", "app"):
        (tmp_path / each).mkdir()
    (tmp_path / "app" / "main").touch()
    code, said = run("references", "build", "web", str(tmp_path / folder), *(("--at", at) if at else ()))
    assert (code, said.count(note)) == (0, 1)
    assert said.count("  note ") == 2


def test_an_authority_that_does_not_run(tmp_path: Path) -> None:
    code, said = run("status", "--admin", str(tmp_path / "admin.sock"))
    assert code == 1
    assert "does not answer" in said


def test_a_benchmark_that_does_not_exist() -> None:
    code, said = run("bench", "rounds")
    assert code == 2
    assert "round, violation, cut" in said


def test_an_envoy_is_run_only_where_it_is_delivered_everything(tmp_path: Path, settings: dict[str, object]) -> None:
    code, said = sidecar(tmp_path, settings, "--run-envoy")
    assert code == 2
    assert "delivery.mode" in said
    assert "without --run-envoy" in said


def test_an_envoy_that_is_named_and_not_run_is_no_silent_wish(tmp_path: Path, settings: dict[str, object]) -> None:
    code, said = sidecar(tmp_path, settings, "/usr/bin/envoy")
    assert code == 2
    assert "--run-envoy" in said


def delivering(folder: Path) -> dict[str, object]:
    """Everything, with what Envoy needs in that folder."""
    files = {"bootstrap": "envoy.json", "admin": "admin.sock", "accessLog": "access.log"}
    service = {name: str(folder / file) for name, file in files.items()}
    return {"socket": str(folder / "xds.sock"), "mode": "xds", "service": service}


def test_the_folder_for_envoy_that_is_not_there(tmp_path: Path, settings: dict[str, object]) -> None:
    delivery = delivering(tmp_path / "run")
    code, said = sidecar(tmp_path, {**settings, "delivery": delivery}, "--run-envoy", "/bin/true")
    assert code == 2
    assert said.startswith(f"proofbeat: {tmp_path}/run: the folder")
    assert f"mkdir -p -m 700 {tmp_path}/run" in said


def test_an_envoy_that_is_no_program(tmp_path: Path, settings: dict[str, object]) -> None:
    delivery = delivering(tmp_path)
    code, said = sidecar(tmp_path, {**settings, "delivery": delivery}, "--run-envoy", str(tmp_path / "token"))
    assert code == 2
    assert "no program that we may run" in said
    assert "delivery.service.envoy" in said
