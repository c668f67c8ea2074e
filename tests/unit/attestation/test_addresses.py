"""Addresses: one form, so that two that are equal look equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.addresses import address, parse
from attestation.errors import InvalidInput


@pytest.mark.parametrize(
    ("host", "port", "form"),
    [
        ("127.0.0.1", 9443, "127.0.0.1:9443"),
        ("::1", 1, "[::1]:1"),
        ("2001:DB8:0:0::7", 65535, "[2001:db8::7]:65535"),
    ],
)
def test_an_address_has_one_form(host: str, port: int, form: str) -> None:
    assert address(host, port) == form
    assert address(*parse(form)) == form


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web:9443",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:09443",
        "127.0.0.01:9443",
        "127.0.0.1:9443 ",
        "127.0.0.1:9443\n",
        "127.0.0.1:944\u0663",
        "::1:9443",
        "[::1]",
        "[::0:1]:9443",
        "[2001:DB8::7]:9443",
        "[fe80::1%eth0]:9443",
        "[::ffff:127.0.0.1]:9443",
        "[::ffff:7f00:1]:9443",
        "0.0.0.0:9443",
        "[::]:9443",
        "224.0.0.1:9443",
        "[ff02::1]:9443",
    ],
)
def test_what_is_no_address_or_has_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        parse(text)


@given(st.ip_addresses(), st.integers(-1, 65_536))
def test_every_address_is_refused_or_reads_back(host: object, port: int) -> None:
    try:
        form = address(str(host), port)
    except InvalidInput:
        return
    assert parse(form) == (str(host), port)
