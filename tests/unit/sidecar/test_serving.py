"""Which certificate evidence says that Envoy serves: the one that it acknowledged, unless it lists another itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from sidecar.delivery import poison
from sidecar.serving import Serving, differing, named
from tests.system.xds.pki import Authority, Leaf
from tests.unit.xds.grpc_client import SocketClient
from tests.unit.xds.stage import Stage, play
from xds.acks import Verdict
from xds.resources.secrets import tls_certificate, validation_context
from xds.snapshot import Resource

SPIFFE_ID = "spiffe://example.org/web"
AUTHORITY = Authority("serving")
FIRST, SECOND = AUTHORITY.leaf(SPIFFE_ID), AUTHORITY.leaf(SPIFFE_ID)
POISON = poison.make(0.0)
EARLIER, LATER = FIRST.certificate.serial_number, SECOND.certificate.serial_number
US = os.getpid()


def certificate(leaf: Leaf, name: str = "default") -> Resource:
    return tls_certificate(name, leaf.chain_pem, leaf.key_pem)


def heard(verdicts: list[Verdict]) -> int | None:
    """What is known after all of these."""
    serving = Serving("default", None)
    for verdict in verdicts:
        serving.answered(verdict)
    return serving.acknowledged


def answers(folder: Path, *told: tuple[Resource, str | None]) -> list[Verdict]:
    """A client's, who subscribes to `default` and ROOTCA: to what is published one after the other."""
    verdicts: list[Verdict] = []

    async def scene(at: Stage, client: SocketClient) -> None:
        stream = client.grpc.open()
        client.grpc.subscribe(stream, "default", "ROOTCA")
        client.flush()
        for number, (resource, rejection) in enumerate(told, start=1):
            at.server.publish(at.server.snapshot.replacing(resource))
            client.answer(stream, await client.told(stream, number), rejection)
        await client.subscribed("default")  # its answer proves that what was sent before has been read
        verdicts.extend(at.verdicts)

    play(folder, scene)
    assert len(verdicts) == len(told)
    return verdicts


def test_it_is_the_certificate_that_envoy_acknowledged_last(tmp_path: Path) -> None:
    assert heard([]) is None
    verdicts = answers(tmp_path, (certificate(FIRST), None), (certificate(SECOND), None))
    assert [heard(verdicts[:1]), heard(verdicts)] == [EARLIER, LATER]


def test_one_that_envoy_refused_is_not_served(tmp_path: Path) -> None:
    assert heard(answers(tmp_path, (certificate(FIRST), None), (certificate(SECOND), "no such key"))) == EARLIER


def test_poison_is_nobodys_certificate(tmp_path: Path) -> None:
    poisoned = tls_certificate("default", POISON.chain, POISON.key)
    assert heard(answers(tmp_path, (certificate(FIRST), None), (poisoned, None))) is None


def test_whatever_else_envoy_acknowledges_says_nothing_of_its_certificate(tmp_path: Path) -> None:
    roots = validation_context("ROOTCA", AUTHORITY.bundle_pem)
    assert heard(answers(tmp_path, (certificate(FIRST), None), (roots, None))) == EARLIER


def test_another_envoy_in_the_seat_has_acknowledged_nothing(tmp_path: Path) -> None:
    serving = Serving("default", None)
    for verdict in answers(tmp_path, (certificate(FIRST), None)):
        serving.answered(verdict)
    assert serving.acknowledged == EARLIER
    serving.seated()
    assert serving.acknowledged is None


def listed(*serials: int, uri: str = SPIFFE_ID) -> dict[str, Any]:
    """As Envoy's admin interface writes it (envoy.admin.v3.Certificates)."""
    chains = [{"serial_number": f"{each:x}", "subject_alt_names": [{"uri": uri}]} for each in serials]
    return {"certificates": [{"ca_cert": [{"serial_number": "01", "subject_alt_names": []}], "cert_chain": chains}]}


@asynccontextmanager
async def admin(
    path: Path, said: dict[str, Any], *, status: str = "200 OK", silent: bool = False
) -> AsyncIterator[None]:
    """What Envoy would be at its admin socket, in this process."""
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not silent:
            writer.write(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(answer, path):
        yield


def stated(folder: Path, said: dict[str, Any], *, envoy: int = US, acknowledged: bool = True, **how: Any) -> int | None:
    """What evidence states beside an admin socket that says this."""
    path = folder / "admin.sock"
    serving = Serving("default", path)
    for verdict in answers(folder, (certificate(FIRST), None)) if acknowledged else ():
        serving.answered(verdict)

    async def scene() -> int | None:
        async with admin(path, said, **how):
            return await serving.stated(envoy)

    return asyncio.run(scene())


def test_an_envoy_that_lists_what_it_acknowledged_is_stated_to_serve_it(tmp_path: Path) -> None:
    assert stated(tmp_path, listed(EARLIER, EARLIER)) == EARLIER


def test_an_envoy_that_lists_another_certificate_is_stated_to_serve_that_one(tmp_path: Path) -> None:
    assert stated(tmp_path, listed(EARLIER, 7)) == 7


def test_an_envoy_that_acknowledged_nothing_and_lists_a_certificate_serves_it(tmp_path: Path) -> None:
    assert stated(tmp_path, listed(7), acknowledged=False) == 7
    assert stated(tmp_path, listed(), acknowledged=False) is None


def test_a_certificate_that_names_nobody_is_not_told_of(tmp_path: Path) -> None:
    nameless = {"certificates": [{"cert_chain": [{"serial_number": "07", "subject_alt_names": [{"dns": "x"}]}]}]}
    assert stated(tmp_path, nameless) == EARLIER


def test_what_another_process_lists_in_envoys_place_is_not_listened_to(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as envoy:
        assert stated(tmp_path, listed(7), envoy=envoy.pid) == EARLIER


@pytest.mark.parametrize("number", ["", "0", "-7", "7_7", "g", "f" * 41, 7, None])
def test_what_is_no_serial_number_makes_no_list(number: object) -> None:
    chain = [{"serial_number": number, "subject_alt_names": [{"uri": SPIFFE_ID}]}]
    with pytest.raises(InvalidInput, match="no list"):
        list(named(json.dumps({"certificates": [{"cert_chain": chain}]}).encode()))


@pytest.mark.parametrize("how", [{"silent": True}, {"status": "503 Busy"}], ids=["silence", "an error"])
def test_an_envoy_that_does_not_list_is_taken_at_its_acknowledgement(tmp_path: Path, how: dict[str, Any]) -> None:
    assert stated(tmp_path, listed(7), **how) == EARLIER


def test_where_nobody_listens_it_is_taken_at_its_acknowledgement(tmp_path: Path) -> None:
    serving = Serving("default", tmp_path / "admin.sock")
    for verdict in answers(tmp_path, (certificate(FIRST), None)):
        serving.answered(verdict)
    assert asyncio.run(serving.stated(US)) == EARLIER


@given(st.none() | st.integers(1, 9), st.frozensets(st.integers(1, 9)))
def test_whatever_is_listed_beside_what_was_acknowledged_is_what_is_stated(
    acknowledged: int | None, others: frozenset[int]
) -> None:
    chosen = differing(acknowledged, others)
    assert chosen == acknowledged if others <= {acknowledged} else chosen in others - {acknowledged}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["certificates", "cert_chain", "serial_number", "subject_alt_names"]), inner
            )
        ),
        max_leaves=8,
    )
)
def test_a_list_that_is_none_is_refused_with_our_own_error(said: Any) -> None:
    try:
        assert all(0 < each < 1 << 160 for each in named(json.dumps(said).encode()))
    except InvalidInput as error:
        assert error.where
