"""What a log line may hold: no secret, no control character, no end of lengths; and always one JSON object."""

from __future__ import annotations

import base64
import io
import json
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from attestation import jws
from telemetry import logs
from telemetry.redaction import CUT, MOST_LINE, MOST_TEXT, REDACTED, redacted, safe


@dataclass(frozen=True)
class Holder:
    """A value as programs pass them: a dataclass of ours."""

    label: str
    held: object


KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def token() -> str:
    """As the authority makes join tokens; tickets have the same form."""
    return secrets.token_urlsafe(32)


SECRETS: dict[str, Callable[[], str]] = {
    "pem": lambda: PEM,
    "pem-without-its-end": lambda: PEM[: len(PEM) // 2],
    "result": lambda: jws.Signer(KEY).sign(b"{}", kind="eat+jwt"),
    "join-token": token,
    "ticket": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode(),
}
WRAPPINGS: dict[str, Callable[[str], object]] = {
    "itself": lambda text: text,
    "in-a-sentence": lambda text: f"the authority said no to {text}, at 10:00",
    "in-a-list": lambda text: ["harmless", [text]],
    "in-a-dict": lambda text: {"outer": {"inner": text}},
    "as-a-key": lambda text: {text: "value"},
    "in-a-dataclass": lambda text: Holder("harmless", Holder("inner", (text,))),
    "in-an-exception": lambda text: ValueError("bad input", {"line": text}),
    "in-bytes": lambda text: text.encode(),
    "in-a-set": lambda text: frozenset({text}),
}


def written(**fields: object) -> str:
    """The line that ends up on stderr."""
    stream = io.StringIO()
    logs.configure("tests", stream)
    try:
        logs.logger().info("event", **fields)
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    return stream.getvalue()


def body(secret: str) -> str:
    """A part of the secret that nobody may find in a log."""
    lines = [line for line in secret.splitlines() if not line.startswith("-----")]
    return lines[0][:40]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_taken_out_by_its_shape_wherever_it_stands(kind: str, wrapping: str) -> None:
    secret = SECRETS[kind]()
    assert body(secret) not in written(found=WRAPPINGS[wrapping](secret))


@given(st.binary(min_size=32, max_size=32), st.text(max_size=60), st.text(max_size=60))
def test_no_token_survives_whatever_stands_around_it(raw: bytes, before: str, after: str) -> None:
    secret = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    if {secret.islower(), secret.isupper()} == {False}:
        assert secret not in safe(f"{before} {secret} {after}")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def-ghi",
        "proxy://user:hunter2secret@host/path",
        "retrying with password=hunter2secret now",
        "{'join_token': 'hunter2secret', 'pid': 4}",
        '{"apiKey": "hunter2secret"}',
    ],
)
def test_credentials_are_taken_out_of_the_texts_that_usually_carry_them(text: str) -> None:
    assert "hunter2secret" not in safe(text)
    assert "abc.def-ghi" not in safe(text)
    assert REDACTED in safe(text)


@pytest.mark.parametrize(
    "name", ["token", "joinToken", "ticket", "client_secret", "PASSWORD", "authorization", "cookie"]
)
def test_a_value_is_a_secret_by_its_name_at_any_depth(name: str) -> None:
    line = written(outer={"inner": [{name: "plain"}]}, **{name: 7})
    assert "plain" not in line
    assert json.loads(line)[name] == REDACTED


def test_a_secret_in_a_traceback_is_taken_out_as_well() -> None:
    secret, stream = token(), io.StringIO()
    logs.configure("tests", stream)
    try:
        raise RuntimeError(f"no answer to {secret}")
    except RuntimeError:
        logs.logger().exception("event")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    line = json.loads(stream.getvalue())
    assert "RuntimeError" in line["exception"]
    assert secret not in stream.getvalue()


def test_what_is_no_secret_stays_as_it_is() -> None:
    fields: dict[str, object] = {
        "instance": "i-" + "0a" * 16,
        "digest": "sha256:" + "ab" * 32,
        "path": "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "spiffe_id": "spiffe://demo-6f871ecd.example/ns/default/sa/web",
        "reasons": ["file-modified: /srv/app/main.py: content sha256:abc123abc123, where only sha256:0 may be"],
        "at": 12.5,
        "full": True,
        "none": None,
        "sequence": 1_764_000_000_000,
    }
    line = json.loads(written(**fields))
    assert {name: line[name] for name in fields} == fields


@given(st.text())
def test_a_hostile_file_name_cannot_begin_a_line_or_move_a_cursor(name: str) -> None:
    line = written(subject=f"/srv/app/{name}\n\x1b[2J\u202e\u2028{{")
    assert line.count("\n") == 1
    said = json.loads(line)["subject"]
    assert said.isprintable()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200) | st.binary(max_size=40),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=20), inner) | st.builds(Holder, st.text(), inner),
    max_leaves=30,
)


@given(st.dictionaries(st.text(string.ascii_lowercase, min_size=1), VALUES, max_size=6))
def test_whatever_is_logged_is_one_strict_json_object_in_printable_text(fields: dict[str, object]) -> None:
    text = json.dumps(redacted(fields), allow_nan=False)
    assert _printable(json.loads(text))


def _printable(value: object) -> bool:
    match value:
        case dict():
            return all(map(_printable, value)) and all(map(_printable, value.values()))
        case list():
            return all(map(_printable, value))
        case str():
            return value.isprintable()
        case _:
            return True


@given(st.text(min_size=1, max_size=40), st.integers(1, 200_000))
def test_no_text_is_longer_than_a_line_of_log_may_hold(text: str, length: int) -> None:
    assert len(safe((text * length)[:length])) <= MOST_TEXT


def test_a_line_has_an_end_however_much_it_is_given() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = [deep]
    fields: dict[str, object] = {
        "many": ["y" * 3000] * 10_000,
        "deep": deep,
        "pairs": {str(n): n for n in range(100_000)},
    }
    line = written(**fields)
    assert len(line) < 4 * MOST_LINE
    assert json.loads(line)["many"][-1] == CUT


def test_a_token_that_a_cut_runs_through_is_not_shown_in_part() -> None:
    for length in range(8080, 8200):
        secret = token()
        said = safe(
            f"-----BEGIN X-----{'a' * length}-----END X----- {secret}".replace("a" * 40, "", 1) + " tail" * 1000
        )
        assert secret[:8] not in said
        assert said.endswith(CUT)


def test_bytes_are_counted_and_never_shown() -> None:
    assert redacted({"found": b"hunter2", "more": bytearray(3)}) == {"found": "[7 bytes]", "more": "[3 bytes]"}


def test_the_end_of_a_text_says_that_more_was_there() -> None:
    assert safe("a " * 100_000).endswith(CUT)
    assert safe("/path" * 1000).endswith(CUT)
