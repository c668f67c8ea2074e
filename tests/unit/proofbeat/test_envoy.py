"""Which program is referenced as an Envoy."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from attestation.errors import InvalidConfiguration
from proofbeat import envoy


def test_an_envoy_is_referenced_by_its_own_digest_under_the_version_that_it_says() -> None:
    program = envoy.program()
    ((version, (digest,)),) = envoy.referenced(program).items()
    assert version == envoy.version(program)
    assert digest == hashlib.sha256(program.read_bytes()).hexdigest()


def test_a_program_that_says_no_version_is_referenced_under_another_name() -> None:
    assert set(envoy.referenced(Path(shutil.which("true") or "/bin/true").resolve())) == {"other"}


def test_a_script_and_what_is_not_there_are_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    script = tmp_path / "envoy"
    script.write_text("#!/bin/sh\nexec envoy\n")
    for program in (script, tmp_path / "absent"):
        with pytest.raises(InvalidConfiguration, match="the program itself") as refused:
            envoy.referenced(program)
        assert refused.value.where == str(program)
