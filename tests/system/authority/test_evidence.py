"""Evidence taken out of a running authority, and judged again under other policies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from authority.latest import Latest, Told
from tests.system.authority.town import BAD, GOOD, MAIN, attester, measured, numbered, policies, town


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "proofbeat", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_latest_evidence_of_every_instance_tells_who_would_close_under_other_policies(tmp_path: Path) -> None:
    folder, after = tmp_path / "evidence", tmp_path / "after.yaml"
    after.write_text(policies().replace(GOOD, BAD))

    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as one, attester(where, 2) as two:
            await one.round()
            two.layers = measured(content=BAD)
            await two.round()
            await one.round()
            said = await asyncio.to_thread(run, "evidence", "save", "--admin", str(where.where.admin), str(folder))
            assert (said.returncode, said.stderr) == (0, "")

    asyncio.run(story())
    assert sorted(file.suffix for file in folder.iterdir()) == [".body", ".body", ".body", ".json", ".json"]
    before = str(tmp_path / "policies.yaml")
    same = run("policy", "diff", before, before, "--evidence", str(folder))
    assert (same.returncode, same.stdout) == (0, "2 instances: 0 would change, 0 would close\n")
    other = run("policy", "diff", before, str(after), "--evidence", str(folder), "--json")
    told = json.loads(other.stdout)
    assert (other.returncode, told["closing"], told["untold"]) == (1, 1, 0)
    assert {each["instance"][-1]: each["closes"] for each in told["changes"]} == {"1": True, "2": False}
    (reason,) = told["changes"][0]["after"]["reasons"]
    assert (reason["signal"], reason["subject"]) == ("file-modified", MAIN)


def test_an_authority_that_has_heard_nobody_has_nothing_to_save(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            admin = str(where.where.admin)
            assert (await asyncio.to_thread(run, "evidence", "save", "--admin", admin, str(tmp_path / "e"))).returncode

    asyncio.run(story())


def test_what_is_silent_the_longest_is_forgotten_first_where_memory_is_bounded() -> None:
    latest = Latest(most_bytes=25)
    one, two, three = map(numbered, range(3))
    for instance in (one, two, one, three):
        latest.put(Told(instance, "web", b"0123456789", 1))
    assert [each.instance for each in latest.every()] == [one, three]
