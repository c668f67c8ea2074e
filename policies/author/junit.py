"""Tried cases as JUnit's XML, which build servers read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from policies.author.trial import Tried

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document can hold (section 2.2)."""


def junit(cases: Sequence[Tried]) -> str:
    """One suite a document of cases, in their sequence."""
    root = ElementTree.Element("testsuites", _counts(cases))
    for test, group in groupby(cases, key=lambda each: each.test):
        own = list(group)
        suite = ElementTree.SubElement(root, "testsuite", {"name": _shown(test), **_counts(own)})
        for each in own:
            place = {"file": _shown(str(each.place.file)), "line": str(each.place.line)}
            case = ElementTree.SubElement(
                suite, "testcase", {"classname": _shown(test), "name": _shown(each.name), **place}
            )
            if each.failures:
                failure = ElementTree.SubElement(case, "failure", {"message": _shown(each.failures[0])})
                failure.text = _shown("\n".join(each.failures))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(cases: Sequence[Tried]) -> dict[str, str]:
    return {"tests": str(len(cases)), "failures": str(sum(bool(each.failures) for each in cases)), "errors": "0"}


def _shown(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
