"""Evidence taken out of a running authority, and judged again under other policies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from attestation import calls
from attestation.calls import CallsMade, Watching
from attestation.layers import Layer
from attestation.tally import Offence, Tally
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


CALLING = (
    policies()
    .replace("  files: {include", "  layers: {syscalls: {demand: best-effort}}\n  files: {include")
    .replace("  executables:", "  syscalls: {all: [chroot, execve, read]}\n  executables:")
)
TALLY = Tally((1, 0, 12), 11, 14, 3, (Offence("chroot", 4242, "/usr/sbin/nginx", 1500),), 2)


def test_what_an_instance_calls_how_often_and_who_was_first_outside_of_the_baseline_is_shown(tmp_path: Path) -> None:
    said: dict[str, subprocess.CompletedProcess[str]] = {}

    async def story() -> None:
        async with town(tmp_path, rules=CALLING) as where, attester(where, 1) as one, attester(where, 2) as two:
            called = calls.pack(CallsMade(Watching.STRICT, ("chroot", "execve", "read")))
            one.layers = {**measured(), Layer.SYSCALLS: called}
            await one.send(
                one.signed(lambda each: replace(each, calls=TALLY, coverage=replace(each.coverage, absent=())))
            )
            await two.round()
            admin = ("--admin", str(where.where.admin))
            for name, command in {
                "status": ("status", *admin, "--json"),
                "why": ("why", *admin, "--json", one.instance.value),
                "other": ("why", *admin, "--json", two.instance.value),
                "asked": ("why", *admin, one.instance.value),
                "show": ("evidence", "show", *admin, "--json", one.instance.value),
                "shown": ("evidence", "show", *admin, one.instance.value),
                "many": ("evidence", "show", *admin, "i-0"),
            }.items():
                said[name] = await asyncio.to_thread(run, *command)

    asyncio.run(story())
    (of_status,) = json.loads(said["status"].stdout)["calls"]
    of_why, of_evidence = (json.loads(said[name].stdout)["calls"] for name in ("why", "show"))
    assert of_status == of_why == of_evidence
    assert (of_why["watching"], of_why["rate"], of_why["peak"], of_why["events"]) == ("strict", 1024, 8192, 4)
    assert {each["call"]: each["count"] for each in of_why["made"]} == {"chroot": 1, "execve": 0, "read": 2048}
    assert of_why["outside"] == [{"call": "chroot", "pid": 4242, "executable": "/usr/sbin/nginx", "age_ms": 1500}]
    assert of_why["more"] == 2
    assert json.loads(said["other"].stdout)["calls"] is None
    for name in ("asked", "shown"):
        assert "chroot, first by /usr/sbin/nginx (4242), 1.5 s before it was measured" in said[name].stdout
    assert "read 2048" in said["shown"].stdout
    layers = {each["layer"] for each in json.loads(said["show"].stdout)["layers"]}
    assert layers == {"files", "processes", "syscalls"}
    assert said["many"].returncode == 2
    assert "2 instances that have attested begin so" in said["many"].stderr


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
