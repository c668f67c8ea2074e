"""Text that came from a measured machine, made fit for logs, terminals, databases and other people's parsers."""

from __future__ import annotations

MOST_CHARACTERS = 2000


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text with everything that is not printable escaped, and cut at `most` characters.

    File names are bytes: they can hold line ends, escape sequences, and what is no UTF-8 at all. Showing twice shows
    the same, so that both sides of a conversation may do it.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escaped(each) for each in text)
    return text[:most]


def shown_lines(text: str, most: int = MOST_CHARACTERS) -> str:
    """`shown`, line by line: for a document of ours, whose line ends are meant."""
    return "\n".join(shown(line, most) for line in text[: 4 * most].split("\n"))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
