"""Where a character of a text stands in the YAML file that the text was read from.

YAML folds lines, takes indentation away and knows escapes, so that a text and what stands in the file differ. What is
no white space is in both, in the same sequence: the place of such a character is found by counting them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

_PROPERTIES = re.compile(r"(?:[!&]\S*\s+)*")
_HEADER = re.compile(r"[|>][^\n]*\n?")
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\s*\n\s*|.)", re.DOTALL)
_BLANKS = {"t", "\t", "n", "r", "v", "f", " ", "N", "_", "L", "P"}
"""Escapes for white space, as `str.isspace` has it, but for those by number."""


def inside(node: yaml.ScalarNode, at: int) -> yaml.Mark:
    """The place of the text's character `at`; for white space and the end, of what comes next.

    Its node was read from a string, which its marks remember.
    """
    wanted = sum(not each.isspace() for each in node.value[:at])
    source, begins = node.start_mark.buffer, node.start_mark.pointer
    if source is None:
        return node.start_mark
    content = source[: node.end_mark.pointer]
    position = last = begins
    for number, position in enumerate(_characters(content, begins, node.style or "")):
        if number == wanted:
            break
        last = position
    else:
        position = last + 1
    start = node.start_mark
    line = start.line + source.count("\n", begins, position)
    column = position - source.rfind("\n", 0, position) - 1 if line > start.line else start.column + position - begins
    return yaml.Mark(start.name, position, line, column, source, position)


def _characters(source: str, begins: int, style: str) -> Iterator[int]:
    """Where each character of the text that is no white space stands."""
    match = _PROPERTIES.match(source, begins)
    position = match.end() if match else begins
    end = len(source)
    if style in ("|", ">"):
        header = _HEADER.match(source, position)
        position = header.end() if header else position
    elif style:
        position, end = position + 1, end - 1
    while position < end:
        length, blank = _step(source, position, style)
        if not blank:
            yield position
        position += length


def _step(source: str, position: int, style: str) -> tuple[int, bool]:
    """How much of the file one character of the text takes, and whether it is white space."""
    if style == "'" and source.startswith("''", position):
        return 2, False
    if style == '"' and (match := _ESCAPE.match(source, position)):
        body = match[0][1:]
        code = int(body[1:], 16) if body[0] in "xuU" and len(body) > 1 else None
        return len(match[0]), body in _BLANKS or "\n" in body or (code is not None and chr(code).isspace())
    return 1, source[position].isspace()
