"""Bundles on disk: what is in them, what is taken out, how many are kept, and what a reader notices."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from attestation.channel import Bundled
from attestation.coverage import Coverage
from attestation.facts import FileChange, FileFact
from attestation.instance import InstanceId
from attestation.jws import Signer
from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from proofbeat.forensics import read, records
from sidecar import forensics
from sidecar.config import ForensicsSettings
from sidecar.forensics import Known
from telemetry.redaction import REDACTED, command_line

INSTANCE = InstanceId("i-" + "0" * 32)
CAUSE = Violation("execution-foreign", ViolationClass.TAMPER, Layer.PROCESSES, "/tmp/\x1b[2Jx", "it ran", 5.0)
SIGNER = Signer(ec.generate_private_key(ec.SECP256R1()))


def known(*facts: FileFact) -> Known:
    return Known(INSTANCE, "spiffe://town.example/web", 3, "quarantined", 1, "freeze", (CAUSE,), Coverage(), facts)


def written(folder: Path, body: bytes, *facts: FileFact, keep: int = 8, most: int = 1 << 20) -> Path:
    settings = ForensicsSettings(keep=keep, most_bytes=most)
    where, _, _ = forensics.write(folder, CAUSE, Bundled(1, True, 5.0), body, known(*facts), SIGNER, settings)
    return where


def test_a_bundle_is_read_as_it_was_written_and_what_is_no_line_is_left_out(tmp_path: Path) -> None:
    where = written(tmp_path / "kept", b'{"is":"process","pid":1}\n{"is":"proc')
    bundle = read(where)
    assert bundle.faults == ()
    assert bundle.manifest is not None
    assert bundle.manifest.subject == "/tmp/\\x1b[2Jx"
    assert list(records(where)) == [{"is": "process", "pid": 1}]


@pytest.mark.parametrize("name", ["about.json", "workload.jsonl", "manifest.json", "manifest.jws"])
def test_whatever_is_changed_later_is_noticed(name: str, tmp_path: Path) -> None:
    where = written(tmp_path / "kept", b'{"is":"process"}\n')
    content = (where / name).read_bytes()
    (where / name).write_bytes(content[:-3] + b" " + content[-2:])
    assert read(where).faults
    (where / name).unlink()
    assert read(where).faults


def test_the_newest_few_are_kept_and_nothing_of_a_run_that_ended_half_way(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".123").mkdir()
    made = []
    for _ in range(4):
        made.append(written(tmp_path / "kept", b"", keep=2))
        time.sleep(0.002)  # their names tell them apart by the millisecond
    assert sorted((tmp_path / "kept").iterdir()) == made[-2:]


def test_no_bundle_is_larger_than_its_bounds(tmp_path: Path) -> None:
    line = json.dumps({"is": "arguments", "arguments": ["\x1b" * 900]}).encode() + b"\n"
    facts = [FileFact(1.0, "/" + "\udcff" * 4000, FileChange.ADDED) for _ in range(512)]
    where = written(tmp_path / "kept", line * 200, *facts, most=64 << 10)
    assert (where / "workload.jsonl").stat().st_size <= 64 << 10
    assert (where / "about.json").stat().st_size <= 1 << 20
    assert json.loads((where / "about.json").read_text())["facts"], "the latest stay"


def test_secrets_in_arguments_are_taken_out() -> None:
    assert command_line(["app", "--password", "hunter2", "--token=abc", "--port", "80"]) == [
        "app",
        "--password",
        REDACTED,
        f"--token={REDACTED}",
        "--port",
        "80",
    ]


@given(st.lists(st.text()))
def test_a_command_line_keeps_the_number_of_its_arguments(arguments: list[str]) -> None:
    assert len(command_line(arguments)) == len(arguments)
