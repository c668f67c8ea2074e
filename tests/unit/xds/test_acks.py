"""A publication knows who accepted it, who rejected it, who went away, and who still owes an answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from xds.acks import Publication, Settlement, StreamId, Verdict, Wait

ONE, TWO = StreamId(1, 1), StreamId(1, 3)
ACCEPTED = Verdict(ONE, "t", "n", 5, ("a",), (), True, "", 1.0)
REJECTED = replace(ACCEPTED, accepted=False, reason="bad")


def awaiting(*streams: StreamId, nonces: frozenset[str] | None = frozenset("n")) -> Publication:
    publication = Publication(5, 0.0)
    for stream in streams:
        publication.awaits(Wait(stream, "t"), nonces)
    return publication


def test_a_rejection_blames_the_resources_that_its_reason_names() -> None:
    several = replace(REJECTED, resources=("in", "in-2", "out"))
    assert replace(several, reason="listener(s) in-2: no filter; out: no port").blamed == ("in-2", "out")
    assert replace(several, reason="cannot be loaded").blamed == ("in", "in-2", "out")
    assert replace(several, accepted=True, reason="").blamed == ()


def test_with_nobody_to_tell_it_is_settled_and_in_force() -> None:
    publication = awaiting()
    assert publication.settled
    assert publication.settlement().in_force


def test_it_is_in_force_once_every_stream_accepted() -> None:
    publication = awaiting(ONE, TWO)
    publication.answered(ACCEPTED)
    assert not publication.settlement().in_force
    assert publication.settlement().pending == (TWO,)
    publication.answered(replace(ACCEPTED, stream=TWO))
    assert publication.settled
    assert publication.settlement().in_force


def test_a_rejection_is_heard_at_once_while_others_are_still_awaited() -> None:
    publication = awaiting(ONE, TWO)
    heard: list[Verdict] = []
    publication.on_rejected(heard.append)
    publication.answered(REJECTED)
    assert heard == [REJECTED]
    assert not publication.settled
    late: list[Verdict] = []
    publication.on_rejected(late.append)
    assert late == [REJECTED], "who asks later hears of it too"


def test_what_stands_rejected_is_heard_once() -> None:
    publication = awaiting(ONE)
    heard: list[Verdict] = []
    publication.on_rejected(heard.append)
    publication.answered(REJECTED)
    publication.already_rejected(replace(REJECTED, at=2.0))
    publication.already_rejected(replace(REJECTED, stream=TWO))
    publication.already_rejected(replace(REJECTED, nonce="another"))
    assert [(v.stream, v.nonce) for v in heard] == [(ONE, "n"), (TWO, "n"), (ONE, "another")]


def test_an_answer_to_another_response_or_type_changes_nothing() -> None:
    publication = awaiting(ONE)
    publication.answered(replace(ACCEPTED, nonce="older"))
    publication.answered(replace(ACCEPTED, type_url="u"))
    publication.answered(replace(ACCEPTED, heartbeat=True))
    assert publication.settlement().pending == (ONE,)


def test_a_stream_that_ends_is_gone_and_not_accepted() -> None:
    publication = awaiting(ONE, TWO)
    publication.stream_gone(ONE)
    publication.answered(replace(ACCEPTED, stream=TWO))
    settlement = publication.settlement()
    assert (settlement.gone, [v.stream for v in settlement.accepted]) == ((ONE,), [TWO])


def test_what_was_never_written_is_superseded_by_the_next_publication() -> None:
    publication = awaiting(ONE, nonces=None)
    publication.awaits(Wait(TWO, "t"), frozenset("n"))
    publication.superseded()
    assert publication.settlement().superseded == (ONE,)
    assert publication.settlement().pending == (TWO,), "what was written will still be answered"
    assert not publication.settlement().in_force


def test_what_is_written_late_is_awaited_from_then_on() -> None:
    publication = awaiting(ONE, nonces=None)
    assert publication.not_written(ONE)
    publication.answered(replace(ACCEPTED, sequence=4))
    assert not publication.settled
    publication.awaits(Wait(ONE, "t"), frozenset({"later"}))
    assert not publication.not_written(ONE)
    publication.answered(ACCEPTED)
    assert not publication.settled
    publication.answered(replace(ACCEPTED, nonce="later"))
    assert publication.settlement().in_force


def test_what_turns_out_not_to_need_writing_is_awaited_no_more() -> None:
    publication = awaiting(ONE, nonces=None)
    publication.awaits(Wait(ONE, "t"), frozenset())
    assert publication.settlement().in_force


def test_each_of_several_responses_has_to_be_accepted() -> None:
    publication = awaiting(ONE, nonces=frozenset("mn"))
    publication.answered(ACCEPTED)
    assert publication.settlement().pending == (ONE,)
    publication.answered(replace(REJECTED, nonce="m"))
    assert publication.settled
    assert not publication.settlement().in_force


def test_an_answer_that_passes_over_earlier_responses_answers_them() -> None:
    publication = awaiting(ONE, nonces=frozenset("mn"))
    publication.answered(replace(ACCEPTED, passed_over=("l", "m")))
    assert publication.settlement().in_force


def test_the_settled_callback_comes_once_and_at_once_when_it_is_late() -> None:
    publication = awaiting(ONE)
    heard: list[Settlement] = []
    publication.on_settled(heard.append)
    assert heard == []
    publication.answered(ACCEPTED)
    publication.answered(ACCEPTED)
    publication.on_settled(heard.append)
    assert [settlement.in_force for settlement in heard] == [True, True]


def test_waiting_ends_with_the_last_answer() -> None:
    async def scenario() -> Settlement:
        publication = awaiting(ONE)
        asyncio.get_running_loop().call_soon(publication.answered, ACCEPTED)
        return await publication.acknowledged(60)

    assert asyncio.run(scenario()).in_force


def test_waiting_ends_at_the_time_limit_with_the_debtors_named() -> None:
    async def scenario() -> Settlement:
        return await awaiting(ONE).acknowledged(0.001)

    assert asyncio.run(scenario()).pending == (ONE,)
