"""A denial says to Envoy what is meant, or is refused: Envoy takes any key, and never finds a wrong one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.rbac.v3 import Action, RbacAction
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac as HttpRbac
from envoy_data_plane.envoy.extensions.filters.network.rbac.v3 import Rbac as TcpRbac
from envoy_data_plane.envoy.extensions.matching.common_inputs.network.v3 import FilterStateInput
from envoy_data_plane.xds.type.matcher.v3 import Matcher, MatcherOnMatch
from hypothesis import given, settings
from hypothesis import strategies as st

from xds.errors import BootstrapError, DenialError
from xds.resources.denials import DeniedPeer, http_deny_peers, peer_marks, tcp_deny_peers
from xds.resources.mesh import endpoints
from xds.resources.rbac import http_allow_all, tcp_allow_all
from xds.resources.service import HostPort, Service, Upstream
from xds.resources.transport import Identities

ONE = hashlib.sha256(b"one").hexdigest()
SUBJECT = "OU=i-stranger,O=Proofbeat"
FINGERPRINTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
REASONS = st.from_regex(r"[a-z]{1,10}:c-[0-9]{4}", fullmatch=True)
PEERS = st.builds(
    DeniedPeer,
    REASONS,
    st.lists(FINGERPRINTS, max_size=3).map(tuple),
    st.lists(st.from_regex(r"OU=i-[0-9]{4},O=Proofbeat", fullmatch=True), min_size=1, max_size=2).map(tuple),
)


@pytest.mark.parametrize(
    "fingerprint",
    [
        ONE.upper(),
        ONE[:-1],
        ONE + "0",
        "",
        ":".join(ONE[at : at + 2] for at in range(0, 64, 2)),
        ONE[:-1] + "g",
        ONE + "\n",
    ],
)
def test_a_fingerprint_that_envoy_would_not_write_is_refused(fingerprint: str) -> None:
    with pytest.raises(DenialError, match="64 hexadecimal digits in lower case"):
        DeniedPeer("why", fingerprints=(fingerprint,))


@pytest.mark.parametrize("subject", ["", "i-0123", "OU=", "=x", "OU=i-0123\n"])
def test_a_subject_that_no_certificate_has_is_refused(subject: str) -> None:
    with pytest.raises(DenialError, match="write it whole"):
        DeniedPeer("why", subjects=(subject,))


def test_a_denial_of_nobody_is_refused() -> None:
    with pytest.raises(DenialError, match="name a fingerprint or a subject"):
        DeniedPeer("why")


def test_with_nobody_denied_everybody_passes() -> None:
    assert http_deny_peers([]) == http_allow_all()
    assert tcp_deny_peers([]) == tcp_allow_all()


@settings(deadline=None)
@given(st.lists(PEERS, min_size=1, max_size=5))
def test_the_denied_are_denied_for_their_first_reason_and_nobody_else_is(denied: list[DeniedPeer]) -> None:
    http = HttpRbac.parse(http_deny_peers(denied).body)
    tcp = TcpRbac.parse(tcp_deny_peers(denied).body)
    assert tcp.stat_prefix
    for matcher in (http.matcher, tcp.matcher):
        assert matcher is not None
        for peer in reversed(denied):
            for mark, values in (("peer.fingerprint", peer.fingerprints), ("peer.subject", peer.subjects)):
                for value in values:
                    first = next(each.reason for each in denied if value in each.fingerprints + each.subjects)
                    assert decided(matcher, {mark: value}) == (RbacAction.DENY, first)
        stranger = {"peer.fingerprint": ONE, "peer.subject": SUBJECT}
        assert decided(matcher, stranger)[0] is RbacAction.ALLOW
        assert decided(matcher, {})[0] is RbacAction.ALLOW


def decided(matcher: Matcher, state: dict[str, str]) -> tuple[RbacAction, str]:
    """What Envoy decides of a connection whose filter state is this."""
    tree = matcher.matcher_tree
    found: MatcherOnMatch | None = None
    if tree is not None:
        assert tree.input is not None
        assert tree.input.typed_config is not None
        assert tree.exact_match_map is not None
        key = FilterStateInput.parse(tree.input.typed_config.value).key
        found = tree.exact_match_map.map.get(state.get(key, ""))
    found = found or matcher.on_no_match
    assert found is not None
    if found.matcher is not None:
        return decided(found.matcher, state)
    assert found.action is not None
    assert found.action.typed_config is not None
    action = Action.parse(found.action.typed_config.value)
    return action.action, action.name


def test_a_listener_keeps_the_marks_that_the_filter_looks_for() -> None:
    kept = json.dumps(peer_marks())
    assert all(f'"object_key": "{mark}"' in kept for mark in ("peer.fingerprint", "peer.subject"))


PEER = Identities(exact=("spiffe://example.org/db",))
HOSTS = tuple(HostPort("10.0.0.1", port) for port in (1, 2, 3))


def reached(*, health_check: bool, denied: tuple[HostPort, ...]) -> dict[int | None, int]:
    """The health of each endpoint, by port."""
    upstream = Upstream("db", HostPort("127.0.0.1", 9), HOSTS, "tcp", PEER, health_check=health_check)
    (resource,) = endpoints(Service(Path("log"), upstreams=(upstream,)), {"db": denied})
    return {
        each.endpoint.address.socket_address.port_value: int(each.health_status)
        for locality in ClusterLoadAssignment.parse(resource.body).endpoints
        for each in locality.lb_endpoints
    }


def test_a_denied_address_is_taken_away_and_with_the_last_nobody_is_reached() -> None:
    assert reached(health_check=False, denied=()) == {1: 0, 2: 0, 3: 0}
    assert reached(health_check=False, denied=HOSTS[:1]) == {2: 0, 3: 0}
    assert reached(health_check=False, denied=(*HOSTS, HostPort("10.0.0.9", 1))) == {}


def test_under_a_health_check_a_denied_address_stays_and_is_unfit() -> None:
    assert reached(health_check=True, denied=HOSTS[:1]) == {1: 2, 2: 0, 3: 0}


@pytest.mark.parametrize("peers", [(), (HOSTS[0], HOSTS[0])], ids=["none", "twice"])
def test_an_upstream_names_each_address_once(peers: tuple[HostPort, ...]) -> None:
    with pytest.raises(BootstrapError, match="name each address once"):
        Upstream("db", HostPort("127.0.0.1", 9), peers, "tcp", PEER)
