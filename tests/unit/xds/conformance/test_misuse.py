"""What no client library sends of itself, sent by gRPC's C core: it ends its own call with a status, and no other."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.unit.xds.conformance.core import Core, Protocol
from tests.unit.xds.conformance.stage import CLUSTER, SECRET, Stage, aggregated, everything, path_of, play
from xds.framing import MAX_MESSAGE_BYTES
from xds.messages import encode_discovery
from xds.services import MAX_TYPES
from xds.subscription import MAX_NAMES

SECRETS = path_of(Protocol.INCREMENTAL, SECRET)


def asking(url: str, *names: str) -> bytes:
    return encode_discovery("DeltaDiscoveryRequest", type_url=url, resource_names_subscribe=names)


def numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


MISUSES = {
    "a unary method": ("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets", (b"",), "UNIMPLEMENTED"),
    "no message": (SECRETS, (b"\xff\xff",), "INTERNAL"),
    "another type": (SECRETS, (asking(CLUSTER, "one"),), "INVALID_ARGUMENT"),
    "too long": (SECRETS, (bytes(MAX_MESSAGE_BYTES + 1),), "RESOURCE_EXHAUSTED"),
    "too many names": (SECRETS, (asking(SECRET, *numbered(MAX_NAMES + 1)),), "RESOURCE_EXHAUSTED"),
    "too many types": (
        aggregated(Protocol.INCREMENTAL),
        tuple(asking(url, "a") for url in numbered(MAX_TYPES + 1)),
        "RESOURCE_EXHAUSTED",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_ends_its_own_call_with_its_status(misuse: str, tmp_path: Path) -> None:
    path, messages, expected = MISUSES[misuse]

    async def scene(stage: Stage, core: Core) -> None:
        bystander = core.delta(SECRETS)
        bystander.ask(SECRET, "one")
        await bystander.told()
        status, details = await core.sent(path, *messages)
        assert (status.name, details != "") == (expected, True)
        stage.server.publish(everything(b"2"))
        assert len((await bystander.told()).resources) == 1

    play(tmp_path, scene)


def test_a_compressed_message_is_refused_with_the_advice_to_send_it_plain(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        # The C core leaves a message as it is that does not get smaller.
        message = asking(SECRET, "a" * 1000)
        status, details = await core.sent(SECRETS, message, compression=grpc.Compression.Gzip)
        assert status is grpc.StatusCode.UNIMPLEMENTED
        assert "encoding identity" in details

    play(tmp_path, scene)


def test_a_call_that_says_nothing_ends_well(tmp_path: Path) -> None:
    async def scene(stage: Stage, core: Core) -> None:
        assert (await core.sent(SECRETS))[0] is grpc.StatusCode.OK
        await stage.empty()

    play(tmp_path, scene)
