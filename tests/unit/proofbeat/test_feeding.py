"""What a relay keeps of a detector's lines: each until the sidecar has said that it read it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proofbeat import feeding
from proofbeat.feeding import MOST_LINES, Backlog

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("send"), st.integers(1, 3)),
        st.tuples(st.just("taken"), st.integers(1, 3)),
        st.tuples(st.just("broken"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_line_is_read_by_the_sidecar_at_least_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    backlog, made, way, read = Backlog(), 0, list[bytes](), list[bytes]()

    def send(most: int) -> None:
        for _ in range(most):
            if (line := backlog.unsent()) is not None:
                way.append(line)

    for what, count in steps:
        match what:
            case "add":
                backlog.add(b"".join(b"%d\n" % (made + each) for each in range(count)))
                made += count
            case "send":
                send(count)
            case "taken":
                arrived = min(count, len(way))
                read += way[:arrived]
                del way[:arrived]
                backlog.taken(arrived)
            case _:
                way.clear()  # what was on its way may be lost
                backlog.again()
    way.clear()
    backlog.again()
    send(len(backlog))
    read += way
    backlog.taken(len(way))
    assert len(backlog) == 0
    assert list(dict.fromkeys(read)) == [b"%d\n" % each for each in range(made)]


def test_beyond_its_bounds_the_oldest_are_given_up_and_counted() -> None:
    backlog = Backlog()
    backlog.add(b"".join(b"%d\n" % each for each in range(MOST_LINES)))
    first = [backlog.unsent() for _ in range(3)]
    backlog.add(b"more\nand more\n")
    assert (backlog.dropped, len(backlog)) == (2, MOST_LINES)
    backlog.taken(3)  # all three that were on their way were read: two of them had been given up
    assert first == [b"0\n", b"1\n", b"2\n"]
    assert backlog.unsent() == b"3\n"
    assert len(backlog) == MOST_LINES - 1


def test_an_unread_answer_takes_no_line_that_was_not_read() -> None:
    backlog = Backlog()
    backlog.add(b"".join(b"%d\n" % each for each in range(MOST_LINES)))
    for _ in range(5):
        backlog.unsent()
    backlog.add(b"a\nb\nc\n")
    backlog.taken(3)  # those that were given up
    backlog.again()
    assert backlog.unsent() == b"3\n"


def test_a_line_without_its_end_is_one_when_nothing_more_comes() -> None:
    backlog = Backlog()
    backlog.add(b"half")
    assert backlog.unsent() is None
    backlog.end()
    assert backlog.unsent() == b"half\n"


def test_a_line_without_end_is_given_up() -> None:
    backlog = Backlog()
    backlog.add(b"x" * (feeding.MOST_BYTES + 1))
    assert (backlog.dropped, len(backlog)) == (1, 0)
