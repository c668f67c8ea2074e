"""gRPC messages survive being cut anywhere, and bad ones end the stream with the right status."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.errors import GrpcStatus, StreamError
from xds.framing import MAX_MESSAGE_BYTES, MessageReader, frame, trailers


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 200)))
def test_messages_are_read_however_their_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame, messages))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = MessageReader()
    read = [message for start, end in itertools.pairwise(edges) for message in reader.feed(data[start:end])]
    reader.finish()
    assert read == messages


def test_a_message_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(StreamError) as raised:
        MessageReader().feed(b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    assert raised.value.status is GrpcStatus.RESOURCE_EXHAUSTED


def test_a_compressed_message_is_refused() -> None:
    with pytest.raises(StreamError) as raised:
        MessageReader().feed(b"\1\0\0\0\0")
    assert raised.value.status is GrpcStatus.UNIMPLEMENTED


def test_a_request_that_ends_inside_a_message_is_an_error() -> None:
    reader = MessageReader()
    reader.feed(frame(b"message")[:-1])
    with pytest.raises(StreamError, match="ends inside a message"):
        reader.finish()


def test_a_status_message_is_percent_encoded() -> None:
    assert dict(trailers(13, "50% of\n\u00fc"))[b"grpc-message"] == b"50%25 of%0A%C3%BC"
