"""Which break-glass orders a sidecar believes, whatever an authority tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from attestation.breakglass import Scope, Signed, to_text
from attestation.errors import InvalidConfiguration
from attestation.instance import InstanceId
from policies.appraise.breakglass import Ground
from policies.model.breakglass import BreakGlassRules
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from sidecar.states import Now, Waived, Waiver
from sidecar.waivers import Waivers
from tests.unit.policies.operators import KEYS, STRANGER, SUBJECT, order, rules, signed

ADA, BOB, CAT = KEYS.values()


def ground(*names: str) -> Ground:
    written = {"mode": "enforce", "breakGlass": rules(*names)}
    policy = AttestationPolicy(metadata=Metadata(name="hardened"), spec=PolicySpec.model_validate(written))
    return Ground("example.org", 3, SUBJECT, policy)


@dataclass
class Heard:
    """A sidecar's waivers, with clocks and a policy that the test sets. Orders last from 1000 to 2800 (wall)."""

    folder: Path
    own: BreakGlassRules | None = None
    now: Now = field(default_factory=lambda: Now(50.0, 1_200.0))
    ground: Ground = field(default_factory=ground)
    stepped: list[Waiver | None] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waivers = self.anew()

    def anew(self) -> Waivers:
        """As after a restart."""

        def stepped(event: Waived) -> None:
            self.stepped.append(event.waiver)

        waivers = Waivers(
            self.folder,
            self.own,
            ground=lambda: self.ground,
            now=lambda: self.now,
            step=stepped,
            refused=self.refused.append,
        )
        waivers.open()
        self.waivers = waivers
        return waivers

    def told(self, *orders: Signed, final: bool = True) -> Waiver | None:
        """What is in force after this list."""
        self.waivers.told([to_text(each) for each in orders], final=final)
        return self.in_force

    @property
    def in_force(self) -> Waiver | None:
        return self.stepped[-1] if self.stepped else None


@pytest.fixture
def heard(tmp_path: Path) -> Heard:
    return Heard(tmp_path)


def test_an_order_is_in_force_until_its_end_on_both_clocks(heard: Heard) -> None:
    assert heard.told(signed()) == Waiver(order().id, 50.0 + 1_600.0, 2_800.0)
    assert heard.waivers.knows(order().id)
    assert heard.refused == []


@pytest.mark.parametrize(
    "forged",
    [
        lambda: Signed(order()),
        lambda: signed(ADA),
        lambda: signed(ADA, STRANGER),
        lambda: replace(signed(), order=order(not_after=2_900)),
        lambda: signed(
            trust_domain="example.com", scope=Scope(order().scope.reach, ("web",), ("spiffe://example.com/web",))
        ),
        lambda: signed(scope=Scope(order().scope.reach, ("db",), ("spiffe://example.org/web",))),
        lambda: signed(scope=Scope(order().scope.reach, ("web",), ("spiffe://example.org/db",))),
        lambda: signed(not_after=4_601),
        lambda: signed(least_epoch=4),
    ],
)
def test_what_an_authority_makes_up_opens_nothing_and_is_told_once(heard: Heard, forged: Callable[[], Signed]) -> None:
    for _ in range(3):
        assert heard.told(forged()) is None
    assert heard.refused and len(heard.refused) == len(set(heard.refused))
    assert not heard.waivers.knows(forged().order.id)


def test_what_does_not_parse_opens_nothing(heard: Heard) -> None:
    heard.waivers.told(["{}", "", "x" * 300_000], final=True)
    assert heard.stepped == []
    assert len(heard.refused) == 3


def test_an_order_for_another_instance_is_not_this_ones(heard: Heard) -> None:
    heard.ground = replace(heard.ground, subject=replace(SUBJECT, instance=InstanceId("i-" + "1" * 32)))
    assert heard.told(signed()) is not None
    scope = Scope(order().scope.reach.INSTANCE, ("i-" + "0" * 32,), ("spiffe://example.org/web",))
    assert heard.told(signed(scope=scope)) is None


@pytest.mark.parametrize("wall", [999.0, 2_800.0])
def test_before_its_beginning_and_after_its_end_it_is_not_in_force(heard: Heard, wall: float) -> None:
    heard.now = Now(50.0, wall)
    assert heard.told(signed()) is None


def test_it_begins_and_ends_with_time_alone(heard: Heard) -> None:
    heard.now = Now(50.0, 999.0)
    heard.told(signed())
    for now, expected in ((Now(51.0, 1_000.0), True), (Now(1_850.9, 2_799.9), True), (Now(1_851.0, 2_800.0), False)):
        heard.now = now
        heard.waivers.weigh()
        assert (heard.in_force is not None) == expected


def test_a_clock_that_is_set_back_stretches_nothing(heard: Heard) -> None:
    before = heard.told(signed())
    heard.now = Now(60.0, 1_001.0)
    assert heard.told(signed()) == before
    heard.told(final=False)
    assert heard.told(signed(), final=False) == before
    heard.now = Now(1_650.0, 1_100.0)
    heard.waivers.weigh()
    assert heard.in_force is None


def test_a_policy_without_one_of_its_operators_ends_it(heard: Heard) -> None:
    heard.told(signed())
    heard.ground = ground("bob", "cat")
    heard.waivers.weigh()
    assert heard.in_force is None
    assert "2 operators must sign, and did: bob" in heard.refused[0]


def test_an_order_that_has_ended_is_not_believed_again_whoever_tells_it(heard: Heard) -> None:
    heard.told(signed())
    assert heard.told() is None
    assert heard.told(signed()) is None
    assert heard.told(signed(ADA, BOB, CAT)) is None


def test_nor_after_a_restart(heard: Heard) -> None:
    heard.told(signed())
    heard.told()
    heard.anew()
    assert heard.told(signed()) is None


def test_an_order_that_stands_is_believed_after_a_restart(heard: Heard) -> None:
    before = heard.told(signed())
    heard.anew()
    heard.stepped.clear()
    assert heard.told(signed()) == before


def test_an_answer_that_does_not_name_it_takes_it_away_and_a_later_one_may_bring_it_back(heard: Heard) -> None:
    before = heard.told(signed())
    assert heard.told(final=False) is None
    assert heard.told(signed(), final=False) == before


def test_it_has_ended_once_a_list_that_is_final_leaves_it_out_whatever_was_heard_between(heard: Heard) -> None:
    heard.told(signed())
    heard.told(final=False)
    heard.told()
    assert heard.told(signed()) is None


def test_what_an_authority_makes_up_without_end_leaves_nothing_on_disk(heard: Heard) -> None:
    for number in range(20):
        heard.told(Signed(order(salt=f"{number:032x}")))
    heard.told()
    assert not (heard.folder / "breakglass-ended").exists()


def test_what_has_ended_is_kept_once_however_often_it_is_told_and_taken_back(heard: Heard) -> None:
    for _ in range(5):
        heard.told(signed())
        heard.told()
    assert (heard.folder / "breakglass-ended").read_text() == f"{order().id}\n"


def test_what_has_ended_is_kept_as_soon_as_it_can_be(heard: Heard) -> None:
    other = signed(salt="cd" * 16)
    heard.told(signed(), other)
    (heard.folder / "breakglass-ended").mkdir()
    heard.told(other)
    (heard.folder / "breakglass-ended").rmdir()
    heard.told()
    kept = (heard.folder / "breakglass-ended").read_text().split()
    assert sorted(kept) == sorted({order().id, other.order.id})


def test_more_that_has_ended_than_is_read_keeps_the_sidecar_from_starting(tmp_path: Path) -> None:
    (tmp_path / "breakglass-ended").write_text("bg-0\n" * 220_000)
    with pytest.raises(InvalidConfiguration, match="more than"):
        Heard(tmp_path)


def test_of_several_the_one_that_ends_last_is_in_force(heard: Heard) -> None:
    longer, shorter = signed(not_after=2_900, salt="cd" * 16), signed()
    found = heard.told(shorter, longer)
    assert found is not None and found.id == longer.order.id
    found = heard.told(shorter)
    assert found is not None and found.id == shorter.order.id


def test_nothing_is_stepped_while_nothing_changes(heard: Heard) -> None:
    for _ in range(5):
        heard.told(signed())
        heard.waivers.weigh()
    assert len(heard.stepped) == 1


def test_a_sidecars_own_settings_bind_an_authority_that_makes_up_policies(tmp_path: Path) -> None:
    heard = Heard(tmp_path, own=BreakGlassRules.model_validate(rules("bob", "cat")))
    assert heard.told(signed(ADA, BOB)) is None
    assert "by this sidecar's own settings, 2 operators must sign, and did: bob" in heard.refused[0]
    assert heard.told(signed(BOB, CAT)) is not None


def test_what_has_ended_and_cannot_be_read_keeps_the_sidecar_from_starting(tmp_path: Path) -> None:
    (tmp_path / "breakglass-ended").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        Heard(tmp_path)


def test_what_has_ended_and_cannot_be_written_has_ended_all_the_same(heard: Heard) -> None:
    heard.told(signed())
    (heard.folder / "breakglass-ended").mkdir()
    assert heard.told() is None
    assert "cannot be kept" in heard.refused[0]
    assert heard.told(signed()) is None
