"""What is JSON here, and what Python's reader would have let through."""

from __future__ import annotations

import pytest

from attestation import processes, strictjson
from attestation.errors import InvalidInput, MalformedEvidence


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, '{"a":1,"a":2}', "NaN", "-Infinity", "1e999", "9" * 5000, b"\xff", "[1]]"]
)
def test_what_is_no_json_or_has_two_meanings_is_refused_with_our_own_error(text: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        strictjson.loads(text)


def test_what_is_json_is_read() -> None:
    assert strictjson.loads(b'{"a": [1, -2.5, null, true, "\\u00e9"]}') == {"a": [1, -2.5, None, True, "é"]}


KIND = (
    '{"capabilities":"0","deleted":false,"digest":"a","executable":%s,"gid":0,"loader":"","loader_digest":"",'
    '"namespaces":[],"no_new_privileges":true,"seccomp":0,"uid":0}'
)


@pytest.mark.parametrize("body", ["[" * 5000, f"[{KIND % '[]'}]", f"[{KIND % '1'}]", f"[{KIND % 'null'},{KIND % '1'}]"])
def test_a_process_list_whose_fields_are_of_other_types_is_refused(body: str) -> None:
    with pytest.raises(MalformedEvidence):
        processes.unpack(body.encode())
