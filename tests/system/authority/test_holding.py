"""`maxUnavailable` at a real authority: who closes for one drift, who is held, what ends it, and who may not lie."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from attestation import cmw
from attestation.drift import MOST_DRIFTS, Drift
from attestation.errors import Unavailable
from attestation.trust import Tier
from attestation.violation import ViolationClass
from authority.holding import MOST_ASKED
from authority.store.records import Happened, Held
from proofbeat.operate import status
from proofbeat.why import lines
from tests.system.authority.town import (
    BAD,
    GOOD,
    MAIN,
    Attester,
    Clock,
    Town,
    attester,
    holding,
    measured,
    policies,
    posted,
    refusal,
    town,
)
from wire.messages import Answer, AskHold, Hold, HoldOver, Report
from wire.session import AuthorityClient, Ticket

WORSE = hashlib.sha256(b"worse").hexdigest()
DRIFT = Drift("file-modified", "files", MAIN, BAD)


def share(percent: int, *, more: str = "") -> str:
    said = f"  maxUnavailable: {percent}%\n{more}  files: {{include"
    return policies().replace("  files: {include", said, 1)


@contextlib.asynccontextmanager
async def fleet(where: Town, count: int) -> AsyncIterator[list[Attester]]:
    """So many instances of `web`, each with a session and affirmed."""
    async with contextlib.AsyncExitStack() as stack:
        found = [await stack.enter_async_context(attester(where, number + 1)) for number in range(count)]
        for one in found:
            assert (await one.round()).chain
        yield found


def played(
    folder: Path, story: Callable[[Town, list[Attester]], Awaitable[None]], percent: int = 25, more: str = ""
) -> None:
    async def whole() -> None:
        async with town(folder, rules=share(percent, more=more)) as where, fleet(where, 4) as found:
            await story(where, found)

    asyncio.run(whole())


async def ask(one: Attester, *drifts: Drift, number: int = 1) -> Hold:
    return await one.client.hold_back(AskHold(number, drifts or (DRIFT,)), 10.0)


async def attest(one: Attester, content: str = BAD, **layers: str) -> Answer:
    one.layers, one.nonce = measured(content, **layers), await one.client.challenge()
    return await one.round()


def report(one: Attester, drift: Drift = DRIFT, *, tamper: bool = False) -> Report:
    one.generation += 1
    of = ViolationClass.TAMPER if tamper else ViolationClass.DRIFT
    text = f"{drift.subject}: modified"
    told = Report(one.generation, of, text, 1_000, kind=drift.kind, layer=drift.layer, subject=drift.subject)
    return replace(told, found=drift.found)


async def let_go(one: Attester) -> None:
    """Until it is told to close."""
    while not isinstance(await asyncio.wait_for(one.pushed.get(), 10), HoldOver):
        pass


async def warned(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The next warnings in the authority's log."""
    async with asyncio.timeout(10):
        while not (said := _warnings(capsys)):  # noqa: ASYNC110 - a log sets no event
            await asyncio.sleep(0.05)
    return said


def _warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "[warning" in line]


async def state(where: Town, one: Attester) -> str:
    return (await where.authority.instance(one.instance)).state.value


def test_one_drift_closes_the_share_and_the_rest_is_held_marked_in_result_certificate_state_and_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        answers = await asyncio.gather(*(ask(one) for one in found))
        assert [each.held for each in answers].count(False) == 1
        assert {(each.closed, each.live) for each in answers} == {(1, 4)}
        for one, answer in zip(found, answers, strict=True):
            given = await attest(one)
            result = one.result(given)
            if not answer.held:
                assert (result.status, result.held, given.chain) == (Tier.CONTRAINDICATED, "", "")
                assert await state(where, one) == "quarantined"
                continue
            assert (result.status, result.held) == (Tier.WARNING, DRIFT.id)
            assert result.reasons[0].startswith("file-modified")
            leaf = x509.load_pem_x509_certificates(given.chain.encode())[0]
            assert cmw.ear_of(leaf) == given.ear
            known = await where.authority.instance(one.instance)
            assert known.held == Held(f"file-modified: {MAIN}", closed=1, live=4)
            why = await where.authority.why(one.instance.value)
            assert why.open and why.answer.startswith(f"held: file-modified: {MAIN}, 1 of 4 closed: file-modified: ")
            told = lines(why, where.folder / "admin.sock")
            assert told[1].startswith(f"warning (held: file-modified: {MAIN}, 1 of 4 closed) since 2")
            assert why.repair[0] == "Put the referenced content back."
        assert not await status(where.folder / "admin.sock", everybody=False, as_json=False)
        assert capsys.readouterr().out.count(f"warning (held: file-modified: {MAIN}, 1 of 4 closed)") == 3

    played(tmp_path, story)


def test_what_no_sidecar_saw_is_held_at_the_appraisal_and_renewed_with_each(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        first, second, *_ = found
        assert not (await attest(first)).chain
        for _ in range(3):
            answer = await attest(second)
            assert answer.chain and second.result(answer).held
        moments = (await where.authority.why(second.instance.value)).history
        assert [each.event for each in moments].count(Happened.HELD) == 1, "a change is told once"

    played(tmp_path, story)


def test_a_repair_makes_room_and_the_one_held_longest_is_told_to_close(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        first, second, third, _ = found
        assert not (await ask(first)).held
        for one in (second, third):
            assert (await ask(one)).held
            assert one.result(await attest(one)).held
        assert (await attest(first, GOOD)).chain
        await let_go(second)
        assert await state(where, second) == "quarantined"
        assert (await where.authority.why(second.instance.value)).answer.startswith("file-modified")
        assert not (await attest(second)).chain
        assert third.result(await attest(third)).held
        assert (await attest(second, GOOD)).chain
        await let_go(third)

    played(tmp_path, story)


def test_whoever_leaves_makes_room(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        assert not (await ask(found[0])).held
        assert (await ask(found[1])).held
        await found[0].client.close(clean=True)
        await let_go(found[1])

    played(tmp_path, story)


def test_a_policy_that_holds_nothing_any_more_closes_all_and_operators_are_told_when_it_begins_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        assert not (await ask(found[0])).held
        assert all([(await ask(one)).held for one in found[1:]])
        said = await warned(capsys)
        (where.folder / "policies.yaml").write_text(share(100))
        await where.authority.reload_policies()
        for one in found[1:]:
            await let_go(one)
        said += await warned(capsys)
        assert [line.split("]")[1].split()[0] for line in said] == ["held", "hold-over"], "once for all three"

    played(tmp_path, story)


def test_a_tamper_on_what_is_held_closes_and_quarantines_it(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        first, second, third, _ = found
        assert not (await ask(first)).held
        assert (await ask(second)).held and (await ask(third)).held
        foreign = Drift("execution-foreign", "processes", "/tmp/payload", WORSE)
        assert (await second.client.report(report(second, foreign, tamper=True))).quarantined
        answer = await attest(third, runtime=BAD)
        assert not answer.chain and third.result(answer).status is Tier.CONTRAINDICATED
        assert await state(where, third) == "quarantined"

    played(tmp_path, story)


def test_another_content_of_the_held_file_closes_the_first_who_has_it(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        assert not (await ask(found[0])).held
        assert (await ask(found[1])).held
        assert not (await attest(found[1], WORSE)).chain

    played(tmp_path, story)


def test_what_is_reported_while_it_is_held_quarantines_nobody_and_does_once_it_closes(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        first, second, *_ = found
        assert not (await ask(first)).held
        assert (await first.client.report(report(first))).quarantined
        assert (await ask(second)).held
        told = report(second)
        assert not (await second.client.report(told)).quarantined
        assert await state(where, second) == "held"
        await where.authority.release(first.instance)
        assert (await attest(first, GOOD)).chain
        await let_go(second)
        assert (await second.client.report(told)).quarantined, "it binds from then on"

    played(tmp_path, story, more="  recovery: {drift: replace}\n")


def test_a_hold_and_a_closing_outlive_a_restart_of_the_authority(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        async with town(tmp_path, rules=share(25), clock=clock) as where, fleet(where, 4) as found:
            assert not (await ask(found[0])).held
            assert (await ask(found[1])).held
            tickets = [Ticket(one.known.ticket) for one in found]
        async with town(tmp_path, clock=clock) as where:
            third = replace(found[2], client=_client(where), enrolment=None, nonce=None)
            await third.enrol(tickets[2])
            async with holding(third):
                assert (await third.round()).chain
                assert (await ask(third)).held

    asyncio.run(story())


def _client(where: Town) -> AuthorityClient:
    return AuthorityClient(where.endpoint(), lambda push: None, timeout=30.0)


# --- who may not lie ---


def test_who_is_closed_is_held_by_no_question_and_no_evidence(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        first, second, *_ = found
        assert not (await ask(first)).held
        for _ in range(3):
            assert not (await ask(first)).held
        await second.enrol(Ticket(second.known.ticket), unclean=True)
        assert not (await attest(second)).chain, "a new run begins closed, and nothing held opens it"

    played(tmp_path, story)


def test_who_was_told_to_close_counts_whatever_it_says_and_nobody_asks_for_another(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        liar, *others = found
        assert not (await ask(liar)).held
        await liar.client.report(report(liar, replace(DRIFT, found=WORSE)))
        assert all([(await ask(one)).held for one in others])

    played(tmp_path, story)


@pytest.mark.parametrize(
    "drifts",
    [
        (),
        (Drift("collector-overflowed", "files", "files.inotify", "lost"),),
        (Drift("proxy-undenied", "proxy", "/usr/bin/envoy", "no filter"),),
        (Drift("no such word", "files", MAIN, BAD),),
        (replace(DRIFT, found="unknown"),),
        (replace(DRIFT, subject="/srv/\x1b[2J"),),
        (replace(DRIFT, subject="/" + "a" * 2000),),
        tuple(replace(DRIFT, subject=f"/srv/app/{number}") for number in range(MOST_DRIFTS + 1)),
    ],
    ids=["nothing", "events-lost", "envoy", "unknown", "content", "escape", "long", "many"],
)
def test_a_question_about_what_is_never_held_is_answered_with_no(tmp_path: Path, drifts: tuple[Drift, ...]) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        for one in found:
            assert not (await one.client.hold_back(AskHold(1, drifts), 10.0)).held

    played(tmp_path, story)


def test_questions_without_end_are_answered_with_no(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        assert not (await ask(found[0])).held
        answers = [await ask(found[1], number=number) for number in range(2 * MOST_ASKED + 1)]
        assert answers[0].held
        assert not all(each.held for each in answers), "whichever minutes they fall into"

    played(tmp_path, story)


def test_without_a_session_nobody_is_asked(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=share(25)) as where, attester(where, session=False) as one:
            assert (await one.round()).chain
            with pytest.raises(Unavailable, match="no session"):
                await ask(one)
            refused = await refusal(posted(where, one, AskHold(1, (DRIFT,))))
            assert (refused.kind, "on a session" in str(refused)) == ("malformed", True)

    asyncio.run(story())


def test_under_a_policy_of_all_nobody_is_held(tmp_path: Path) -> None:
    async def story(where: Town, found: list[Attester]) -> None:
        assert [(await ask(one)).held for one in found] == [False] * 4
        assert [(await attest(one)).chain for one in found] == [""] * 4

    played(tmp_path, story, percent=100)
