"""What the sidecar says of the Envoy in its seat, and when that is one that an appraisal affirmed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import proxy
from attestation.channel import Inspected
from attestation.facts import ProxyFact
from attestation.layers import Layer, Method
from attestation.observation import Observation
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from sidecar.proxy import ProxyLayer
from xds.acks import StreamId, Verdict
from xds.messages import LISTENER, SECRET
from xds.peer import Peer
from xds.resources.ecds import EXTENSION_CONFIG_TYPE
from xds.snapshot import type_url

SECRETS, LISTENERS = type_url(SECRET), type_url(LISTENER)
ENVOY = ProxyProcess("a" * 64, Known.NO, Known.NO, Known.YES)
OTHER = replace(ENVOY, executable="b" * 64)
PATIENCE = 3.0
NOBODY = 0
"""The pid in a word about nobody: no Envoy is guarded."""


class Told:
    """A layer with a clock that a test sets, and what it told."""

    def __init__(self, delivered: Delivered = Delivered.SECRETS) -> None:
        self.now = 100.0
        self.facts: list[ProxyFact] = []
        self.observed: list[tuple[Observation, Proxy | None]] = []
        self.layer = ProxyLayer(
            delivered,
            clock=lambda: self.now,
            patience=lambda: PATIENCE,
            saw=self.facts.append,
            observed=lambda seen, body: self.observed.append((seen, proxy.unpack(body))),
        )

    @property
    def latest(self) -> Proxy:
        held = self.observed[-1][1]
        assert held is not None
        return held

    def seat(self, pid: int = 7) -> None:
        self.layer.seated(Peer(pid, 0, 0, -1, None, "/usr/bin/envoy", (pid,)))

    def inspect(self, process: ProxyProcess | None = ENVOY, pid: int = 7, tracer: str = "") -> bool:
        return self.layer.inspected(Inspected(Method.FULL, self.now, self.now, process, pid, tracer))

    def answer(
        self, url: str, *names: str, removed: tuple[str, ...] = (), accepted: bool = True, heartbeat: bool = False
    ) -> None:
        verdict = Verdict(StreamId(1, 1), url, "1.0", 1, names, removed, accepted, "", self.now, heartbeat)
        self.layer.answered(verdict)

    def affirm(self, process: ProxyProcess = ENVOY) -> None:
        held = Proxy(process, Delivered.SECRETS, Denial.PENDING, (), Known.UNKNOWN)
        self.layer.affirmed(proxy.pack(held))


def seated(delivered: Delivered = Delivered.SECRETS) -> Told:
    told = Told(delivered)
    told.seat()
    told.inspect()
    return told


def test_nobody_in_the_seat_is_told_as_nobody_and_is_no_fact() -> None:
    told = Told()
    told.inspect(None, pid=NOBODY)
    assert told.observed == [(Observation(Layer.PROXY, proxy.digest(b"null"), Method.FULL, 100.0, 100.0, 0), None)]
    assert told.facts == []


def test_an_envoy_with_a_certificate_has_a_while_to_ask_for_filters_and_is_then_told_without() -> None:
    told = seated()
    told.answer(SECRETS, "default")
    told.now += PATIENCE - 0.1
    told.layer.look()
    early = told.latest
    told.now += 0.2
    told.layer.look()
    assert (early.denial, told.latest.denial) == (Denial.PENDING, Denial.MISSING)
    assert told.facts[-1].proxy == told.latest


@pytest.mark.parametrize("heartbeat", [False, True])
def test_filters_that_are_accepted_are_in_force_also_where_only_a_heartbeat_shows_it(heartbeat: bool) -> None:
    told = seated()
    told.answer(SECRETS, "default")
    told.answer(EXTENSION_CONFIG_TYPE, "outbound", "inbound", heartbeat=heartbeat)
    assert (told.latest.denial, told.latest.filters) == (Denial.IN_FORCE, ("inbound", "outbound"))


def test_a_filter_that_is_refused_is_missing_at_once_until_it_is_accepted() -> None:
    told = seated()
    told.answer(SECRETS, "default")
    told.answer(EXTENSION_CONFIG_TYPE, "inbound")
    told.answer(EXTENSION_CONFIG_TYPE, "outbound", accepted=False)
    refused = told.latest
    told.answer(EXTENSION_CONFIG_TYPE, "outbound")
    assert (refused.denial, told.latest.denial) == (Denial.MISSING, Denial.IN_FORCE)


def test_an_envoy_that_we_deliver_everything_to_is_judged_by_its_listeners_and_resumes_nothing() -> None:
    told = seated(Delivered.EVERYTHING)
    told.answer(SECRETS, "default")
    told.now += 2 * PATIENCE
    told.layer.look()
    assert (told.latest.denial, told.latest.resumption_off) == (Denial.PENDING, Known.YES)
    told.answer(LISTENERS, "in")
    told.answer(EXTENSION_CONFIG_TYPE, "inbound")
    assert told.latest.denial is Denial.IN_FORCE
    told.answer(LISTENERS, removed=("in",))
    assert (told.latest.denial, told.latest.filters) == (Denial.PENDING, ())


def test_resumption_on_somebody_elses_listeners_is_not_known() -> None:
    assert seated().latest.resumption_off is Known.UNKNOWN


def test_a_change_is_told_once_as_a_fact_and_each_look_as_an_observation() -> None:
    told = seated()
    told.inspect()
    assert (len(told.facts), len(told.observed)) == (1, 2)
    told.inspect(replace(ENVOY, traced=Known.YES), tracer="9 /bin/gdb")
    assert (len(told.facts), told.facts[-1].tracer) == (2, "9 /bin/gdb")
    assert told.facts[-1].process.executable == "/usr/bin/envoy"


def test_a_steady_envoy_repeats_its_digest_whatever_its_pid_is() -> None:
    told = seated()
    told.seat(8)
    told.inspect(pid=8)
    first, second = (seen.digest for seen, _ in told.observed)
    assert first == second


def test_what_is_read_of_an_earlier_envoy_says_nothing_of_the_one_in_the_seat() -> None:
    told = seated()
    told.affirm()
    told.seat(8)
    assert not told.inspect(pid=7)
    assert not told.layer.stands_affirmed
    assert len(told.observed) == 1


def test_that_an_earlier_envoy_has_ended_says_nothing_of_the_one_in_the_seat() -> None:
    told = seated()
    told.affirm()
    told.seat(8)
    assert told.inspect(pid=8)
    assert not told.inspect(None, pid=7)
    assert told.layer.stands_affirmed
    assert told.latest.process == ENVOY


@pytest.mark.parametrize("pid", [7, NOBODY])
def test_the_first_word_about_an_envoy_is_the_first_that_says_what_it_is(pid: int) -> None:
    """Its end may be told late, and that nobody is guarded before the order to guard it has arrived."""
    told = seated()
    told.inspect(None)
    told.seat(8)
    assert not told.inspect(None, pid=pid)
    assert told.inspect(pid=8)
    assert not told.inspect(pid=8)


def test_an_envoy_stands_affirmed_once_it_is_read_and_as_the_affirmed_one() -> None:
    told = seated()
    assert not told.layer.stands_affirmed
    told.affirm()
    assert told.layer.stands_affirmed
    told.seat(8)
    assert not told.layer.stands_affirmed
    assert told.inspect(OTHER, pid=8), "the first word about it"
    assert not told.layer.stands_affirmed
    told.affirm(OTHER)
    assert told.layer.stands_affirmed
    assert not told.inspect(OTHER, pid=8)


def test_answers_of_an_earlier_envoy_do_not_count_for_its_successor() -> None:
    told = seated()
    told.answer(SECRETS, "default")
    told.answer(EXTENSION_CONFIG_TYPE, "inbound")
    told.seat(8)
    told.inspect(pid=8)
    assert (told.latest.denial, told.latest.filters) == (Denial.PENDING, ())


STEPS = st.lists(
    st.sampled_from(
        (
            *(f"{what} {pid}" for what in ("seat", "read", "other", "ended") for pid in (7, 8)),
            *("nobody", "affirm", "affirm other"),
        )
    ),
    max_size=12,
)


@given(STEPS)
def test_whatever_happens_only_an_envoy_that_was_read_in_this_seat_and_affirmed_stands(steps: list[str]) -> None:
    told, seat, read, affirmed = Told(), "", None, None
    for step in steps:
        what, _, which = step.partition(" ")
        match what:
            case "seat":
                seat, read = which, None
                told.seat(int(which))
            case "read" | "other":
                process = ENVOY if what == "read" else OTHER
                read = process if which == seat else read
                told.inspect(process, int(which))
            case "ended" | "nobody":
                read = None if which in ("", seat) else read
                told.inspect(None, int(which or NOBODY))
            case _:
                affirmed = OTHER if which else ENVOY
                told.affirm(affirmed)
        assert told.layer.stands_affirmed is (read is not None and read == affirmed)
