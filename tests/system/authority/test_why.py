"""Why an instance is or was closed: asked of a real authority, by whatever name the operator has at hand."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.errors import InvalidInput, Refused
from attestation.facts import Actor
from attestation.instance import InstanceId
from attestation.violation import ViolationClass
from authority.why import Why
from tests.system.authority.town import BAD, MAIN, Attester, Town, attester, measured, played, policies, stranger, town
from wire.messages import Report
from wire.session import JoinToken

DRIFT = Report(
    1,
    ViolationClass.DRIFT,
    f"{MAIN}: content is other\x1b[2J",
    1_700_000_000_000,
    kind="file-modified",
    layer="files",
    subject=MAIN,
    process=Actor(4242, "/bin/sh\n", 4100),
    rule=f"ReferenceValues/web: spec.files[{MAIN}]",
    mend="Put the referenced content back.",
    allow='kind: ReferenceValues\nmetadata: {name: "web"}\n',
)
TAMPER = Report(2, ViolationClass.TAMPER, "/tmp/payload: it was executed", 1_700_000_001_000, kind="execution-foreign")


async def again(one: Attester, generation: int) -> None:
    one.generation, one.nonce = generation, await one.client.challenge()
    await one.round()


async def why(where: Town, asked: object, ago: float | None = None) -> Why:
    return await where.authority.why(str(asked), None if ago is None else where.clock() - ago)


async def gone(where: Town) -> set[InstanceId]:
    return {each.instance for each in await where.authority.instances() if each.gone}


def test_a_drift_is_explained_with_process_file_line_allowance_and_repair_until_it_is_over(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.round()
        where.clock.ahead += 10
        await one.client.report(DRIFT)
        told = await why(where, one.instance)
        assert (told.state, told.open) == ("quarantined", False)
        assert told.cause is not None
        assert (told.cause.kind, told.cause.violation_class) == ("file-modified", "drift")
        assert told.cause.subject == MAIN
        assert told.cause.process == Actor(4242, "/bin/sh\\n", 4100)
        assert told.cause.text.endswith("\\x1b[2J")
        assert told.cause.allow == DRIFT.allow
        file, _, line = told.cause.place.partition(":")
        assert MAIN in (tmp_path / file).read_text().splitlines()[int(line) - 1]
        assert told.repair[0] == DRIFT.mend
        where.clock.ahead += 10
        await again(one, 1)
        assert (await why(where, one.instance)).open
        then = await why(where, one.instance, ago=5)
        assert (then.state, then.cause, then.now) == ("quarantined", told.cause, "fresh")
        assert (await why(where, one.instance, ago=15)).open
        assert not (await why(where, one.instance, ago=3600)).known

    played(tmp_path, story)


def test_rounds_that_change_nothing_leave_no_trace_and_a_lease_that_ended_is_told_at_its_end(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        for _ in range(4):
            await one.round()
        assert [each.event for each in (await why(where, "web")).history] == ["enrolled", "affirmed"]
        where.clock.ahead += 100
        told = await why(where, "web")
        assert (told.state, told.open) == ("stale", False)
        await again(one, 0)
        told = await why(where, "web")
        assert [each.event for each in told.history] == ["enrolled", "affirmed", "lease-ended", "affirmed"]
        then = await why(where, "web", ago=20)
        assert then.state == "stale"
        assert then.at_ms - then.since_ms == pytest.approx(20_000, abs=2_000)

    played(tmp_path, story)


def test_a_verdict_against_it_names_what_the_verifier_found(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.round()
        one.layers = measured(content=BAD)
        for _ in range(3):
            await again(one, 0)
        told = await why(where, one.instance)
        assert told.cause is not None
        assert (told.state, told.cause.kind, told.cause.subject) == ("quarantined", "file-modified", MAIN)
        assert told.cause.place.startswith("policies.yaml:")
        assert BAD in told.cause.allow
        assert [each.event for each in told.history] == ["enrolled", "affirmed", "not-affirmed"]

    played(tmp_path, story)


def test_it_goes_by_any_unambiguous_name_and_by_the_cause_that_a_refused_client_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 0x10) as one, attester(where, 0x20):
            identity = "spiffe://town.example/web"
            assert (await why(where, one.instance.value[:33])).instance == one.instance.value
            for name in ("web", identity, "i-0000"):
                with pytest.raises(InvalidInput, match="means 2 instances"):
                    await why(where, name)
            for name in ("nobody", "i-ff", "c-00", "%"):
                with pytest.raises(Refused, match="no instance goes by"):
                    await why(where, name)
            with pytest.raises(InvalidInput, match="yet to come"):
                await why(where, one.instance, ago=-60)
            await one.client.report(DRIFT)
            told = await why(where, one.instance)
            assert told.cause is not None
            where.clock.ahead += 10
            await again(one, 1)
            by_cause = await why(where, told.cause.id)
            assert (by_cause.instance, by_cause.state, by_cause.now) == (one.instance.value, "quarantined", "fresh")
            assert by_cause.cause == told.cause

    asyncio.run(story())


def test_a_tampered_instance_that_was_replaced_is_gone_explained_and_still_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            async with attester(where, 1) as one:
                await one.round()
                await one.client.report(TAMPER)
                await one.client.close()
            (left,) = await where.authority.instances()
            assert (left.state, left.gone) == ("quarantined", False)
            where.clock.ahead += 5
            async with attester(where, 2) as two:
                await two.round()
                assert await gone(where) == {one.instance}
                await two.client.report(DRIFT)
                assert (await why(where, "web")).instance == two.instance.value
                told = await why(where, one.instance)
                assert (told.state, told.gone) == ("quarantined", True)
                assert told.cause is not None
                assert told.cause.kind == "execution-foreign"
                back = stranger(where, 1)
                enrolled = await back.enrol(JoinToken(await where.authority.create_token("web")))
                assert enrolled.standing.quarantined
                with pytest.raises(Refused, match="quarantined"):
                    await back.round()
                await back.client.close(clean=False)

    asyncio.run(story())


def test_who_says_goodbye_is_gone_at_once_and_who_falls_silent_after_a_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            async with attester(where, 1) as one:
                await one.round()
                await one.client.close()
            async with attester(where, 2) as two:
                await two.round()
            assert await gone(where) == {one.instance}
            assert (await why(where, one.instance)).state == "ended"
            where.clock.ahead += 700
            assert await gone(where) == {one.instance, two.instance}
            # Whoever comes back is here again.
            async with attester(where, 2) as two:
                await two.round()
                assert await gone(where) == {one.instance}

    asyncio.run(story())


def test_in_audit_a_violation_is_told_as_what_would_have_happened(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.round()
        await one.client.report(DRIFT)
        told = await why(where, "web")
        assert (told.state, told.open, told.cause) == ("fresh", True, None)
        assert told.history[-1].event == "would-have"
        found = told.history[-1].explanation
        assert found is not None
        assert (found.kind, found.violation_class, found.rule) == (DRIFT.kind, "drift", DRIFT.rule)
        assert found.allow == DRIFT.allow, "what would allow it, before anything is enforced"

    played(tmp_path, story, rules=policies(mode="audit"))


def test_history_outlives_a_restart_and_a_flood_of_reports_keeps_what_began_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where) as one:
            await one.round()
            await one.client.report(DRIFT)
            for number in range(2, 520):
                await one.client.report(replace(DRIFT, generation=number, cause=f"report {number}"))
        async with town(tmp_path) as where:
            told = await why(where, one.instance)
            assert told.cause is not None
            assert told.cause.text.startswith(MAIN)
            (count,) = sqlite3.connect(tmp_path / "authority.sqlite").execute("SELECT count(*) FROM history").fetchone()
            assert count <= 510

    asyncio.run(story())


def asked(admin: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "proofbeat", *arguments, "--admin", str(admin)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_answers_in_words_and_as_one_object_and_tells_no_from_nonsense(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.round()
        await one.client.report(TAMPER)
        admin = where.where.admin

        async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(asked, admin, *arguments)

        said = await run("why", "web")
        assert said.returncode == 0, said.stderr
        assert "execution-foreign: /tmp/payload: it was executed" in said.stdout
        assert f"proofbeat release --admin {admin} {one.instance}" in said.stdout
        told: dict[str, Any] = json.loads((await run("why", "web", "--json")).stdout)
        assert (told["state"], told["open"], told["cause"]["class"]) == ("quarantined", False, "tamper")
        assert set(told) == {
            *("instance", "spiffe_id", "registration", "at", "state", "since", "open", "held", "answer", "cause"),
            *("others", "repair", "now", "calls", "history_begins", "history"),
        }
        assert (await run("why", "web", "--at", "-1h")).returncode == 0
        assert (await run("why", "nobody")).returncode == 1
        assert (await run("why", "web", "--at", "yesterday")).returncode == 2
        assert (await run("status")).returncode == 1

    played(tmp_path, story)


def test_status_says_yes_again_once_a_tampered_instance_has_been_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            async with attester(where, 1) as one:
                await one.client.report(TAMPER)
                await one.client.close()
            where.clock.ahead += 1
            async with attester(where, 2) as two:
                await two.round()
                said = await asyncio.to_thread(asked, where.where.admin, "status")
                assert (said.returncode, one.instance.value in said.stdout) == (0, False), said.stdout
                said = await asyncio.to_thread(asked, where.where.admin, "status", "--all")
                assert (said.returncode, one.instance.value in said.stdout) == (0, True)

    asyncio.run(story())


def test_an_authority_that_is_away_is_named_with_where_to_look_meanwhile(tmp_path: Path) -> None:
    said = asked(tmp_path / "admin.sock", "why", "web")
    assert said.returncode == 1
    assert "does not answer" in said.stderr
    assert "sidecar's log" in said.stderr
