"""The edge of every program: what goes wrong is explained there, and no secret with it."""

from __future__ import annotations

import pytest

from attestation.errors import InvalidConfiguration, Unavailable
from proofbeat import process


def ending(error: Exception) -> int:
    async def program() -> None:
        raise error

    return process.run(program)


def test_an_error_of_ours_is_one_line_and_its_kind_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(Unavailable("it is away", where="authority", mend="Wait.")) == process.NO
    assert ending(InvalidConfiguration("no such key", where="a.yaml:3")) == process.USAGE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith("proofbeat: ") for line in said)


def test_a_fault_of_our_own_shows_its_traceback_without_the_secrets_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "-----BEGIN PRIVATE KEY-----abc-----END PRIVATE KEY-----"
    assert ending(RuntimeError(f"broken with {secret}")) == process.NO
    said = capsys.readouterr().err
    assert "RuntimeError: broken with" in said
    assert "test_process.py" in said
    assert "abc" not in said
