"""The certificate that an instance's Envoy serves has to be one that was issued to this very instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography import x509

from attestation import proxy
from attestation.claims import Claims
from attestation.layers import Layer
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from attestation.trust import Tier
from authority.store.records import State
from tests.system.authority.town import Attester, Town, attester, holding, policies, stranger, town
from wire.messages import Answer
from wire.session import JoinToken

LAYERS = "  layers: {files: {}, processes: {}, proxy: {demand: best-effort}}\n  proxy: {requireReferenced: false}\n"
RULES = policies().replace("  files: {include", f"{LAYERS}  files: {{include")
ENVOY = Proxy(
    ProxyProcess("", Known.NO, Known.NO, Known.YES), Delivered.SECRETS, Denial.PENDING, (), resumption_off=Known.UNKNOWN
)


def serving(serial: int | None) -> Callable[[Claims], Claims]:
    def change(claims: Claims) -> Claims:
        absent = tuple(layer for layer in claims.coverage.absent if layer is not Layer.PROXY)
        return replace(claims, coverage=replace(claims.coverage, absent=absent), served=serial)

    return change


async def says(one: Attester, serial: int | None) -> Answer:
    """A round in which it says that its Envoy serves this."""
    one.layers[Layer.PROXY] = proxy.pack(ENVOY)
    return await one.send(one.signed(serving(serial)))


def serial_of(answer: Answer) -> int:
    return x509.load_pem_x509_certificate(answer.chain.encode()).serial_number


async def shown(where: Town, one: Attester) -> str:
    """What operators are told that it serves."""
    return next(each.served for each in await where.authority.instances() if each.instance == one.instance)


def test_its_own_certificate_of_the_last_lease_or_of_one_before_is_affirmed_and_shown(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=RULES) as where, attester(where) as one:
            first = serial_of(await says(one, None))
            assert await shown(where, one) == ""
            for serial in [first, serial_of(await says(one, first)), first]:
                answer = await says(one, serial)
                assert one.result(answer).status is Tier.AFFIRMING
                assert await shown(where, one) == f"{serial:x}"

    asyncio.run(story())


def test_whichever_certificate_of_its_own_it_serves_no_body_is_asked_for_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=RULES) as where, attester(where) as one:
            first = serial_of(await says(one, None))
            asked = len(one.asked_for)
            await says(one, serial_of(await says(one, first)))
            assert len(one.asked_for) == asked

    asyncio.run(story())


def test_a_certificate_of_another_instance_is_contraindicated_each_time_until_it_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=RULES) as where, attester(where, 1) as one, attester(where, 2) as two:
            foreign, own = serial_of(await says(two, None)), serial_of(await says(one, None))
            for _ in range(2):
                answer = await says(one, foreign)
                assert (one.result(answer).status, answer.chain) == (Tier.CONTRAINDICATED, "")
                assert f"{foreign:x}" in one.result(answer).reasons[0]
                assert await shown(where, one) == ""
            (closed,) = [each for each in await where.authority.instances() if each.instance == one.instance]
            assert (closed.state, closed.causes) == (State.QUARANTINED, ()), "what the next round may heal"
            assert one.result(await says(one, own)).status is Tier.AFFIRMING

    asyncio.run(story())


def test_after_the_authority_was_started_again_a_certificate_of_before_is_known(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path, rules=RULES) as where:
            one = stranger(where)
            await one.enrol(JoinToken(await where.authority.create_token("web")))
            serial = serial_of(await says(one, None))
        async with town(tmp_path, listen=where.where.url.removeprefix("https://")), holding(one, session=False):
            assert one.result(await says(one, serial)).status is Tier.AFFIRMING

    asyncio.run(story())
