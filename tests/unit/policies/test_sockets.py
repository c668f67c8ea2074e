"""Sockets of processes: which shells may have one as stdio, and what may be connected to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from attestation.coverage import EGRESS, CollectorCoverage, Mechanism
from attestation.facts import Actor, EgressFact, Fact, Opened, StdioFact
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import Violation
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model.merge import Rank
from policies.model.policy import MOST_DESTINATIONS, AttestationPolicy, PolicySpec
from tests.unit.policies.test_merge import merged
from tests.unit.policies.world import POLICY, PYTHON, REFERENCES, claimed, governing


def policy(**spec: Any) -> AttestationPolicy:
    ruled = PolicySpec.model_validate({"files": {"include": ["/srv/app"]}, **spec})
    return AttestationPolicy(metadata=POLICY.metadata, spec=ruled)


def found(fact: Fact, **spec: Any) -> Violation | None:
    return violates(fact, policy(**spec), REFERENCES)


def on_socket(executable: str, opened: Opened = Opened.HERE) -> StdioFact:
    return StdioFact(1.0, Actor(9, executable), (0, 1, 2), "TCP", opened, "203.0.113.9:4444", 3)


def to(host: str, port: int = 443, protocol: str = "tcp") -> EgressFact:
    return EgressFact(1.0, Actor(9, PYTHON), protocol, host, port)


# Stdio.


@pytest.mark.parametrize(
    "executable",
    ["/bin/sh", "/usr/bin/dash", "/usr/bin/bash", "/opt/busybox", "/usr/bin/python3.11", "/usr/bin/perl5.36",
     "/usr/local/bin/node", "/usr/bin/php8.2", "/usr/bin/nc.openbsd", "/usr/bin/socat"],
)  # fmt: skip
def test_a_shell_an_interpreter_or_a_relay_on_a_socket_is_tamper_whoever_opened_it(executable: str) -> None:
    for opened in Opened:
        seen = found(on_socket(executable, opened))
        assert seen is not None
        assert (seen.kind, seen.tamper, seen.subject) == (Signal.PROCESS_STDIO_SOCKET, True, executable)


@pytest.mark.parametrize("executable", ["/usr/sbin/nginx", "/usr/sbin/in.ftpd", "/srv/app/pythonic-thing/run", ""])
def test_what_is_no_shell_may_have_one(executable: str) -> None:
    assert found(on_socket(executable)) is None


def test_what_policy_calls_a_shell_is_one_beside_all_that_are() -> None:
    for executable in ("/srv/repl", "/bin/sh"):
        assert found(on_socket(executable), processes={"shells": ["/srv/repl"]}) is not None


def test_a_shell_that_policy_lists_may_have_what_it_was_given_and_nothing_that_was_opened_from_here() -> None:
    allowed = {"processes": {"shellsOnSockets": ["/bin/sh"]}}
    assert found(on_socket("/bin/sh", Opened.THERE), **allowed) is None
    for opened in (Opened.HERE, Opened.UNKNOWN):
        seen = found(on_socket("/bin/sh", opened), **allowed)
        assert seen is not None and seen.allow == ""
    assert found(on_socket("/bin/dash", Opened.THERE), **allowed) is not None


def test_what_would_allow_a_shell_on_a_socket_does() -> None:
    seen = found(on_socket("/bin/sh", Opened.THERE))
    assert seen is not None
    told = yaml.safe_load(seen.allow)["spec"]
    assert found(on_socket("/bin/sh", Opened.THERE), **told) is None


def test_a_reader_is_told_which_streams_whose_and_to_where() -> None:
    seen = found(on_socket("/bin/sh"))
    assert seen is not None
    assert seen.text == (
        "/bin/sh (9, 3 inside): a socket (TCP) is its standard input, output, error, connected to 203.0.113.9:4444"
    )


# Egress.


def test_nothing_is_judged_where_nobody_says_what_may_be_connected_to() -> None:
    assert found(to("203.0.113.9")) is None


@pytest.mark.parametrize(
    ("allowed", "fact", "violated"),
    [
        (["203.0.113.0/24"], to("203.0.113.9"), False),
        (["203.0.113.0/24:443"], to("203.0.113.9", 444), True),
        (["203.0.113.9:53/udp"], to("203.0.113.9", 53), True),
        (["203.0.113.9:53/udp"], to("203.0.113.9", 53, "udp"), False),
        (["[2001:db8::/32]:443"], to("2001:db8::9"), False),
        (["10.0.0.0/8", "2001:db8::/32"], to("2001:db9::9"), True),
        ([], to("203.0.113.9"), True),
    ],
)
def test_a_connection_that_no_destination_holds_is_a_violation(
    allowed: list[str], fact: EgressFact, violated: bool
) -> None:
    seen = found(fact, egress={"allowed": allowed})
    assert (seen is not None) == violated
    if seen is not None:
        assert (seen.kind, seen.tamper, seen.rule) == (
            Signal.EGRESS_FOREIGN,
            True,
            "AttestationPolicy/hardened: spec.egress.allowed",
        )
        told = yaml.safe_load(seen.allow)["spec"]
        assert set(allowed) <= set(told["egress"]["allowed"])
        assert found(fact, **told) is None


def test_processes_that_are_not_judged_are_not_judged_by_their_sockets() -> None:
    off = {"layers": {"processes": {"demand": "off"}}, "egress": {"allowed": []}}
    assert found(to("203.0.113.9"), **off) is None
    assert found(on_socket("/bin/sh"), **off) is None


def test_two_policies_together_allow_what_both_allow_and_an_empty_list_is_not_no_list() -> None:
    ruled = merged(
        ("floor", Rank.MESH, {"egress": {"allowed": ["10.0.0.0/8", "0.0.0.0/0:443"], "every": "5s"}}),
        ("web", Rank.WORKLOAD, {"egress": {"allowed": ["10.1.0.0/16:5432", "192.0.2.0/24:400-500"], "every": "1s"}}),
    )
    assert ruled.spec.egress.allowed == ("10.1.0.0/16:5432", "192.0.2.0/24:443")
    assert ruled.spec.egress.every == 1.0
    disjoint = merged(
        ("floor", Rank.MESH, {"egress": {"allowed": ["10.0.0.0/8"]}}),
        ("web", Rank.WORKLOAD, {"egress": {"allowed": ["192.0.2.0/24"]}}),
    )
    assert disjoint.spec.egress.allowed == ()
    assert violates(to("10.0.0.1"), disjoint, REFERENCES) is not None
    silent = merged(("floor", Rank.MESH, {"egress": {"allowed": ["10.0.0.0/8"]}}), ("web", Rank.WORKLOAD, {}))
    assert silent.spec.egress.allowed == ("10.0.0.0/8",)


@pytest.mark.parametrize("listed", [["10.0.0.1/8"], ["db.example.org:443"], ["10.0.0.0/8:0"]])
def test_what_is_no_destination_is_refused(listed: list[str]) -> None:
    with pytest.raises(ValidationError):
        policy(egress={"allowed": listed})


def test_more_destinations_than_a_measurer_can_be_told_are_refused() -> None:
    listed = [f"10.0.{number}.0/24" for number in range(MOST_DESTINATIONS)]
    assert policy(egress={"allowed": listed}).spec.egress.allowed == tuple(sorted(listed, key=_in_order))
    with pytest.raises(ValidationError):
        policy(egress={"allowed": [*listed, "192.0.2.7"]})


def _in_order(destination: str) -> int:
    return int(destination.split(".")[2])


# Evidence.


@pytest.mark.parametrize(("watched", "running", "tier"), [
    (True, True, Tier.AFFIRMING), (False, True, Tier.WARNING), (True, False, Tier.NONE)
])  # fmt: skip
def test_where_policy_says_what_may_be_connected_to_evidence_has_to_say_that_somebody_looks(
    watched: bool, running: bool, tier: Tier
) -> None:
    claims, bodies = claimed()
    looks = CollectorCoverage(EGRESS, Layer.PROCESSES, Mechanism.POLL, 1000.0, running)
    if watched:
        claims = replace(claims, coverage=replace(claims.coverage, collectors=(*claims.coverage.collectors, looks)))
    ruled = policy(egress={"allowed": []})
    assert appraise(claims, bodies, governing(ruled)).tier is tier
