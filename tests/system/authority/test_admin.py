"""The operator's socket, and what keeps an authority from starting."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from attestation.errors import InvalidConfiguration, Unavailable
from authority.app import Authority
from tests.system.authority.town import Attester, Town, configured, played, policies, stranger, town
from wire.session import JoinToken


async def ask(path: Path, method: str, url: str, body: object = None) -> tuple[int, dict[str, Any]]:
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(method, "http://authority" + url, data=None if body is None else json.dumps(body)) as answer,
    ):
        found: dict[str, Any] = json.loads(await answer.read())
        return answer.status, found


def test_an_operator_makes_tokens_looks_quarantines_and_releases(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            admin = where.where.admin
            assert stat.S_IMODE(admin.stat().st_mode) == 0o600
            status, made = await ask(admin, "POST", "/admin/tokens", {"registration": "web", "lifetime": "5m"})
            assert status == 200
            one = stranger(where)
            await one.enrol(JoinToken(made["token"]))
            await one.round()
            who = one.instance.value
            _, listed = await ask(admin, "GET", "/admin/instances")
            (state,) = listed["instances"]
            assert (state["instance"], state["spiffe_id"], state["tier"]) == (
                who,
                "spiffe://town.example/web",
                "affirming",
            )
            assert state["lease_end_ms"] > state["last_round_ms"] > 0
            status, standing = await ask(admin, "POST", "/admin/quarantine", {"instance": who, "cause": "odd"})
            assert (status, standing["quarantined"]) == (200, True)
            _, why = await ask(admin, "GET", f"/admin/why?instance={who}")
            assert (why["state"], why["open"], why["cause"]["text"]) == ("quarantined", False, "odd")
            status, _ = await ask(admin, "POST", "/admin/release", {"instance": who, "causes": []})
            assert status == 409
            status, released = await ask(admin, "POST", "/admin/release", {"instance": who})
            assert status == 200
            assert released["order"].count(".") == 2
            assert (await ask(admin, "POST", "/admin/policies"))[1] == {
                "epoch": 1,
                "wrong": {"faults": [], "left_out": 0},
            }
            assert (await ask(admin, "POST", "/admin/attest", {"instance": who}))[1] == {"asked": False}
            await one.client.close(clean=False)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "url", "body", "status", "kind"),
    [
        ("POST", "/admin/tokens", {"registration": "nobody"}, 404, "registration-unknown"),
        ("POST", "/admin/tokens", {"registration": "web", "lifetime": "1s"}, 400, "malformed"),
        ("POST", "/admin/tokens", {"registration": "web", "lifetime": "soon"}, 400, "malformed"),
        ("POST", "/admin/tokens", {"registration": "web", "lifetyme": "1h"}, 400, "malformed"),
        ("POST", "/admin/tokens", {"registration": 7}, 400, "malformed"),
        ("POST", "/admin/tokens", [], 400, "malformed"),
        ("POST", "/admin/quarantine", {"instance": "pid 7", "cause": "x"}, 400, "malformed"),
        ("POST", "/admin/quarantine", {"instance": "i-" + "0" * 32, "cause": "x"}, 401, "instance-unknown"),
        ("POST", "/admin/release", {"instance": "i-" + "0" * 32, "causes": "all"}, 400, "malformed"),
        ("GET", "/admin/why?instance=i-" + "0" * 32, None, 401, "instance-unknown"),
        ("GET", "/admin/why", None, 400, "malformed"),
        ("GET", "/admin/policy", None, 400, "malformed"),
        ("GET", "/admin/policy?of=nobody", None, 404, "registration-unknown"),
        ("GET", "/admin/policy?of=i-0", None, 401, "instance-unknown"),
        ("GET", "/admin/nothing", None, 404, "not-found"),
    ],
)
def test_a_mistake_is_answered_by_a_problem_document(
    tmp_path: Path, method: str, url: str, body: object, status: int, kind: str
) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            answered, problem = await ask(where.where.admin, method, url, body)
            assert (answered, problem["status"]) == (status, status)
            assert problem["type"] == f"https://proofbeat.dev/problems/{kind}"
            assert problem["title"]
            assert problem["detail"]

    asyncio.run(story())


@pytest.mark.parametrize("asked", ["web", "spiffe://town.example/web", "i-0000"])
def test_an_operator_is_told_where_each_value_comes_from_that_rules_a_workload(tmp_path: Path, asked: str) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            await stranger(where).enrol(JoinToken(await where.authority.create_token("web")))
            status, told = await ask(where.where.admin, "GET", f"/admin/policy?of={asked}")
            assert (status, told["registration"], told["policies"]) == (200, "web", ["hardened"])
            values = {each["place"]: each for each in told["values"]}
            assert values["interval"]["by"] == [{"policy": "hardened", "at": "policies.yaml:7:3", "value": "10s"}]
            assert values["deadman"]["by"] == []

    asyncio.run(story())


def test_a_cause_without_words_is_refused(tmp_path: Path) -> None:
    async def story(where: Town, one: Attester) -> None:
        body = {"instance": one.instance.value, "cause": "  "}
        assert (await ask(where.where.admin, "POST", "/admin/quarantine", body))[0] == 400

    played(tmp_path, story, session=False)


def test_two_authorities_do_not_share_an_admin_socket_and_a_dead_ones_is_taken_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path):
            with pytest.raises(Unavailable, match="another authority"):
                await Authority(configured(tmp_path)).run(lambda _: None)
        assert (tmp_path / "admin.sock").is_socket()
        async with town(tmp_path) as where:
            assert (await ask(where.where.admin, "GET", "/admin/instances"))[0] == 200

    asyncio.run(story())


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        first, second = tmp_path / "one", tmp_path / "two"
        first.mkdir()
        second.mkdir()
        (second / "policies.yaml").write_text(policies())
        async with town(first) as where:
            with pytest.raises(Unavailable, match="cannot listen"):
                await Authority(configured(second, where.where.url.removeprefix("https://"))).run(lambda _: None)

    asyncio.run(story())


def test_policies_that_cannot_be_read_keep_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text("kind: Nonsense")
    with pytest.raises(InvalidConfiguration, match="unknown kind"):
        asyncio.run(Authority(configured(tmp_path)).run(lambda _: None))


def test_a_demos_ca_is_refused_unless_it_is_a_demo(tmp_path: Path) -> None:
    config = configured(tmp_path)
    demo = config.model_copy(update={"ca": config.ca.model_copy(update={"name": "DEMO - do not trust"})})
    Authority(demo, allow_demo=True)
    with pytest.raises(InvalidConfiguration, match="demo"):
        Authority(demo)
