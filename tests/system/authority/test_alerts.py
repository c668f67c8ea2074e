"""Detectors post their alerts to the authority, as falcosidekick and Falco do: who may, and who is told."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from attestation.detectors.alerts import Alert, Detector, Whereabouts
from attestation.errors import InvalidConfiguration, InvalidInput, Refused
from authority.app import Authority, Listening
from tests.system.authority.town import TOKEN, Attester, Town, attester, configured, played, policies, town
from tests.unit.attestation.alerting import CONTAINER, falco, line, tetragon
from wire.messages import Alerted, Noted, Placed

HERE = Whereabouts(container=CONTAINER)
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def post(
    where: Town, body: bytes, headers: Mapping[str, str] = BEARER, path: str = "/v1/alerts", host: str = ""
) -> tuple[int, dict[str, Any]]:
    """By a client that knows no SPIFFE IDs, and checks the name in the URL."""
    trusting = ssl.create_default_context(cadata=where.where.bundle)
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            where.where.url + path, data=body, headers=headers, ssl=trusting, server_hostname=host or None
        ) as answer,
    ):
        return answer.status, json.loads(await answer.read())


def now(**changes: Any) -> bytes:
    """An alert of this moment about the container that HERE names."""
    return line(falco(time=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z", **changes))


async def told(one: Attester) -> Alert:
    while not isinstance(push := await asyncio.wait_for(one.pushed.get(), 10), Alerted):
        pass
    (alert,) = push.alerts
    return alert


@pytest.mark.parametrize("headers", [BEARER, basic("falco", TOKEN), basic("", TOKEN)], ids=["bearer", "url", "no user"])
def test_an_alert_is_told_to_the_instance_that_runs_where_it_was_raised(
    tmp_path: Path, headers: Mapping[str, str]
) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.client.wait_connected()
        assert await one.client.tell(Placed(HERE))
        assert await post(where, now(), headers) == (200, {"instances": [one.instance.value]})
        alert = await told(one)
        assert (alert.detector, alert.rule) == (Detector.FALCO, "Terminal shell in container")

    played(tmp_path, story)


def test_who_runs_elsewhere_is_told_nothing_and_the_detector_that_nobody_was(tmp_path: Path) -> None:
    async def whole() -> None:
        async with town(tmp_path) as where, attester(where, 1) as one, attester(where, 2, registration="api") as other:
            for each, container in ((one, CONTAINER), (other, "0" * 64)):
                await each.client.wait_connected()
                await each.client.tell(Placed(Whereabouts(container=container)))
            assert (await post(where, now(**{"container.id": "0" * 12})))[1] == {"instances": [other.instance.value]}
            assert (await post(where, now(**{"container.id": "1" * 12})))[1] == {"instances": []}
            assert (await told(other)).about.container == "0" * 12
            assert one.pushed.empty()

    asyncio.run(whole())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Proofbeat {TOKEN}"},
        {"Authorization": "Basic !!!"},
        basic(TOKEN, ""),
        basic("falco", TOKEN[:-1]),
    ],
)
def test_without_a_detectors_token_nothing_is_even_read(tmp_path: Path, headers: Mapping[str, str]) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.client.wait_connected()
        await one.client.tell(Placed(HERE))
        status, problem = await post(where, b"no alert at all", headers)
        assert (status, problem["type"].rpartition("/")[2]) == (401, "token-invalid")

    played(tmp_path, story)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "malformed"),
        (b"[" * 60_000, 400, "malformed"),
        (b"\xff\xfe", 400, "malformed"),
        (b"x" * (64 * 1024 + 1), 413, "too-large"),
        (line(falco()), 400, "malformed"),
        (line(tetragon()), 400, "malformed"),
    ],
    ids=["empty", "deep", "no text", "large", "years old", "years old, Tetragon's"],
)
def test_what_is_no_alert_of_now_is_refused(tmp_path: Path, body: bytes, status: int, kind: str) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.client.wait_connected()
        await one.client.tell(Placed(HERE))
        found, problem = await post(where, body)
        assert (found, problem["type"].rpartition("/")[2]) == (status, kind)
        assert one.pushed.empty()

    played(tmp_path, story)


def test_a_detectors_client_finds_the_authority_by_the_names_that_settings_give_it(tmp_path: Path) -> None:
    async def story(where: Town, _: Attester) -> None:
        assert (await post(where, now(), host="authority.example"))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await post(where, now(), host="elsewhere.example")

    played(tmp_path, story)


def test_where_nobody_may_post_there_is_nothing_to_post_to(tmp_path: Path) -> None:
    async def whole() -> None:
        (tmp_path / "policies.yaml").write_text(policies())
        config = configured(tmp_path).model_copy(update={"detectors": None})
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        ready: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as http:
            running = tasks.create_task(Authority(config).run(ready.set_result))
            url = f"{(await ready).url}/v1/alerts"
            async with http.post(url, data=now(), headers=BEARER, ssl=anybody) as answer:
                assert answer.status == 404
            running.cancel()

    asyncio.run(whole())


def test_a_token_that_is_guessed_too_easily_keeps_the_authority_from_starting(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(policies())
    (tmp_path / "detector-token").write_text("secret")
    with pytest.raises(InvalidConfiguration, match="32 are the least"):
        Authority(configured(tmp_path))


def test_what_policy_only_observes_is_a_line_of_the_instances_history_and_changes_no_state(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        await one.round()
        await one.client.wait_connected()
        alert = Alert(Detector.FALCO, "Read\x1b sensitive file", "x" * 5000, 1)
        await one.client.tell(Noted(alert, 2))
        found = await where.authority.why(one.instance.value)
        last = found.history[-1]
        assert (last.event, last.state, found.open) == ("observed", "fresh", True)
        assert last.text.isprintable() and last.text.endswith("2 more before it") and len(last.text) < 1000

    played(tmp_path, story)


def test_a_place_and_a_note_are_only_said_in_a_session(tmp_path: Path) -> None:
    async def story(_: Town, one: Attester) -> None:
        assert not await one.client.tell(Placed(HERE))

    played(tmp_path, story, session=False)


def test_a_place_without_end_is_refused(tmp_path: Path) -> None:
    async def story(_: Town, one: Attester) -> None:
        await one.client.wait_connected()
        with pytest.raises((Refused, InvalidInput)):
            await one.client.tell(Placed(Whereabouts(node="x" * 1000)))

    played(tmp_path, story)
