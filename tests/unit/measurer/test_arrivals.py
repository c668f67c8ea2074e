"""What a container runtime says of a container whose listener it hands over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from measurer.seccomp.arrivals import state

SAID: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "fds": ["seccompFd"],
    "pid": 4422,
    "state": {"ociVersion": "1.0.2", "id": "box", "status": "creating", "pid": 4422, "bundle": "/run/box"},
}


def read(**changes: Any) -> tuple[int, int, bool]:
    return state(json.dumps({**SAID, **changes}).encode())


def test_it_names_the_containers_first_process_and_which_descriptor_is_the_listener() -> None:
    assert read() == (4422, 0, True)
    assert read(fds=["other", "seccompFd"]) == (4422, 1, True)


def test_a_program_that_is_added_belongs_to_the_container_and_not_to_itself() -> None:
    assert read(pid=9000) == (4422, 0, False)


def test_while_the_container_has_no_first_process_it_is_the_one_that_is_begun() -> None:
    assert read(state={**SAID["state"], "pid": 0}) == (4422, 0, True)
    assert read(state={"id": "box"}) == (4422, 0, True)


@pytest.mark.parametrize(
    "changes",
    [{"fds": []}, {"fds": 7}, {"state": []}, {"state": None}, {"pid": "1", "state": {}}, {"pid": -4, "state": {}}],
)
def test_what_names_no_container_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read(**changes)


@given(st.binary(max_size=200))
def test_garbage_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInput):
        state(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["pid", "fds", "state"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_whatever_shape_it_has_it_is_read_or_refused(said: Any) -> None:
    try:
        pid, position, _ = state(json.dumps(said).encode())
    except InvalidInput:
        return
    assert pid > 0
    assert position >= 0
