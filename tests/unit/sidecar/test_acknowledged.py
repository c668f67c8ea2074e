"""Which list of whom to refuse Envoy carries out, and when what it has open to the denied is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sidecar.staged import DEADMAN, ESCALATE, Stage, Story, identity, settled, told
from tests.unit.xds.grpc_client import SECRETS
from xds.resources.ecds import EXTENSION_CONFIG_TYPE


def test_it_is_the_one_that_envoy_has_acknowledged(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        assert stage.envoy is not None
        (asked,) = stage.envoy.unanswered
        assert b"list 3" in asked.bodies[0]
        assert stage.delivery.refuses == 0
        await stage.envoy_answers()
        assert stage.delivery.refuses == 3
        await stage.lists(4)
        await stage.envoy_answers("no such CRL")
        assert stage.delivery.refuses == 3
        await stage.lists(5)
        await stage.envoy_answers()
        assert stage.acknowledged == [3, 5]

    told(tmp_path, story)


def test_without_an_envoy_none_is_carried_out_and_nothing_is_cut(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.delivery.serve(identity(1), None)
        await stage.lists(3)
        await stage.passes(ESCALATE)
        assert (stage.acknowledged, stage.severed) == ([], [])
        await stage.opened(2)
        assert stage.acknowledged == [3]

    told(tmp_path, story)


def test_what_is_closed_stays_so_when_the_list_changes(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        before = stage.server.snapshot
        await stage.lists(3)
        assert stage.server.snapshot is before
        assert (stage.acknowledged, stage.severed) == ([], [])

    told(tmp_path, story)


def test_another_envoy_carries_out_none_until_it_has_acknowledged_one_itself(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        await stage.envoy_answers()
        await stage.lists(4)
        await stage.envoy_ends()
        assert stage.severed == [3, 4]
        await stage.envoy_comes()
        assert stage.delivery.refuses == 0
        await stage.envoy_takes_everything()
        await stage.passes(ESCALATE)
        assert stage.severed == [3, 4], "what the other had left unanswered is nobody's to answer"
        await stage.opened(2)
        assert stage.acknowledged == [3, 4]
        assert stage.delivery.refuses == 4

    told(tmp_path, story)


async def says_no_to_filters_beside_it(stage: Stage) -> None:
    """Which are told anew, for they have another lifetime."""
    stage.retimed(DEADMAN / 2)
    await stage.lists(3)
    assert stage.envoy is not None
    assert [each.type_url for each in stage.envoy.unanswered] == [SECRETS, EXTENSION_CONFIG_TYPE]
    await stage.envoy_answers()
    await stage.envoy_answers("no such filter")


async def says_no_to_it(stage: Stage) -> None:
    await stage.lists(3)
    await stage.envoy_answers("no such CRL")


async def says_nothing(stage: Stage) -> None:
    await stage.lists(3)
    await stage.passes(ESCALATE - 0.01)
    assert stage.severed == []
    await stage.passes(0.01)


async def is_not_there_to_be_told(stage: Stage) -> None:
    await stage.envoy_hangs_up()
    await stage.lists(3)


async def goes_away_before_it_says_anything(stage: Stage) -> None:
    await stage.lists(3)
    await stage.envoy_hangs_up()


@pytest.mark.parametrize(
    "envoy",
    [
        says_no_to_filters_beside_it,
        says_no_to_it,
        says_nothing,
        is_not_there_to_be_told,
        goes_away_before_it_says_anything,
    ],
)
def test_what_is_open_to_the_denied_is_cut_whatever_envoy_says_and_is_not_called_refused(
    tmp_path: Path, envoy: Story
) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await envoy(stage)
        assert stage.severed == [3]
        assert (stage.delivery.refuses, stage.acknowledged) == (0, [])

    told(tmp_path, story)


def test_it_is_cut_once_more_when_envoy_refuses_them_after_all_and_then_no_more(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        await stage.passes(ESCALATE)
        await stage.envoy_takes_everything()
        assert stage.severed == [3, 3]
        stage.delivery.serve(identity(2), stage.lease())
        await stage.envoy_takes_everything()
        await stage.passes(ESCALATE)
        assert (stage.severed, stage.acknowledged) == ([3, 3], [3])

    told(tmp_path, story)


def test_an_envoy_that_rejects_every_lease_has_one_list_cut_once(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        await stage.envoy_answers("no such CRL")
        for number in (2, 3):
            stage.delivery.serve(identity(number), stage.lease())
            await settled()
            await stage.envoy_answers("no such key")
        await stage.passes(ESCALATE)
        assert stage.severed == [3]

    told(tmp_path, story)


def test_lists_that_follow_one_another_do_not_put_off_what_is_due_for_the_first(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        for version in (3, 4):
            await stage.lists(version)
            await stage.passes(ESCALATE / 2)
        assert stage.severed == [4]
        await stage.passes(ESCALATE)
        assert stage.severed == [4, 4], "the second has its time as well"

    told(tmp_path, story)


def test_an_answer_about_an_earlier_list_leaves_the_time_of_a_later_one(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        await stage.lists(4)
        await stage.envoy_answers()
        assert stage.severed == [4]
        assert stage.delivery.refuses == 3
        await stage.passes(ESCALATE)
        assert stage.severed == [4, 4]

    told(tmp_path, story)


def test_a_list_that_a_newer_one_overtook_before_it_was_written_has_not_been_answered(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        assert stage.envoy is not None
        stage.envoy.read_no_more()
        await stage.lists(3, crl=b"of many" * 10_000)
        for version in (4, 5):
            await stage.lists(version)
        assert stage.severed == []
        await stage.passes(ESCALATE)
        assert stage.severed == [5]

    told(tmp_path, story)


def test_an_answer_in_time_leaves_nothing_due(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        await stage.envoy_answers()
        await stage.passes(ESCALATE)
        assert stage.severed == [3]

    told(tmp_path, story)


@pytest.mark.parametrize("spared", [False, True], ids=["draining", "opening what drained"])
def test_what_drains_is_cut_from_the_denied_at_once(tmp_path: Path, spared: bool) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        stage.delivery.drain("file-modified", DEADMAN)
        await stage.envoy_takes_everything()
        if spared:
            stage.delivery.serve(identity(2), stage.lease())
        await stage.lists(3)
        assert stage.severed == [3]

    told(tmp_path, story)


def test_nothing_is_cut_for_a_list_after_delivery_has_stopped(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        await stage.lists(3)
        stage.delivery.stop()
        await stage.envoy_hangs_up()
        await stage.passes(ESCALATE)
        assert stage.severed == []

    told(tmp_path, story)
