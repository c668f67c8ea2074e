"""Peers are told whom to refuse: by push, at once, with everything that they know it by; and nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import Refused
from attestation.violation import ViolationClass
from proofbeat import operate
from tests.system.authority.test_sessions import hello, http_to
from tests.system.authority.town import Attester, Town, attester, policies, posted, town
from wire import messages, versions
from wire.messages import MOST_ADDRESSES, AttestNow, Denials, Denied, DeniedLeaf, Report
from wire.session import Ticket
from wire.versions import Version

TAMPER = Report(1, ViolationClass.TAMPER, "a foreign program was executed", 1_700_000_000_000)
HERE, THERE = "127.0.0.1:9443", "[::1]:9443"
OBSERVED = (
    policies().replace("spec:\n  mode", "spec:\n  selector: {registrations: [web, api]}\n  mode", 1)
    + """---
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: watched}
spec: {selector: {registrations: [lab]}, mode: observe}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: lab}
spec: {spiffeId: spiffe://town.example/lab, references: web}
"""
)
"""And a registration whose policy enforces nothing."""


@pytest.fixture(autouse=True)
def _no_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at the list again every few seconds, and would put right what was not told at once."""
    monkeypatch.setattr("authority.app._HOUSEKEEPING", 3600.0)


async def told(one: Attester, fits: Callable[[Denials], bool]) -> Denials:
    """The first list that is pushed and fits; whatever else is pushed before it is passed over."""
    async with asyncio.timeout(20):
        while True:
            pushed = await one.pushed.get()
            if isinstance(pushed, Denials) and fits(pushed):
                return pushed


def naming(*those: Attester) -> Callable[[Denials], bool]:
    wanted = {one.instance for one in those}
    return lambda denials: {each.instance for each in denials.denied} == wanted


def leaf_of(chain: str) -> DeniedLeaf:
    leaf = x509.load_pem_x509_certificate(chain.encode())
    serial = leaf.serial_number
    return DeniedLeaf(
        serial.to_bytes((serial.bit_length() + 7) // 8, "big"),
        leaf.fingerprint(hashes.SHA256()).hex(),
        int(leaf.not_valid_after_utc.timestamp()) * 1000,
    )


def revoked(denials: Denials, chain: str) -> set[int]:
    """The serials in the CRL, which the issuer of this chain has to have signed."""
    crl = x509.load_pem_x509_crl(denials.crl)
    intermediate = x509.load_pem_x509_certificates(chain.encode())[1]
    public = intermediate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(public)
    assert crl.next_update_utc == intermediate.not_valid_after_utc
    return {entry.serial_number for entry in crl}


def test_who_is_quarantined_is_told_to_peers_by_every_leaf_and_taken_off_by_its_release(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as peer:
            await bad.client.reachable((HERE, THERE))
            first = await bad.round()
            leaves = [leaf_of((await bad.round()).chain), leaf_of(first.chain)]
            nobody = await peer.client.denials()
            assert nobody is not None
            assert (nobody.version, nobody.denied, revoked(nobody, first.chain)) == (0, (), set())
            assert (await peer.round()).revocation_version == 0

            standing = await bad.client.report(TAMPER)
            denials = await told(peer, naming(bad))
            expected = Denied(
                bad.instance, "spiffe://town.example/web", standing.causes[0].id, tuple(leaves), (HERE, THERE)
            )
            assert denials.denied == (expected,)
            assert revoked(denials, first.chain) == {int.from_bytes(leaf.serial, "big") for leaf in leaves}
            assert await peer.client.denials() == denials
            answer = await peer.round()
            assert answer.revocation_version == denials.version > 0
            assert leaf_of(answer.chain).serial not in {leaf.serial for leaf in leaves}

            await where.authority.release(bad.instance)
            after = await told(peer, naming())
            assert after.version > denials.version
            assert revoked(after, first.chain) == set()

    asyncio.run(story())


def test_a_restart_keeps_the_list_and_its_version_and_tells_every_session_that_opens(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as peer:
            await bad.round()
            await bad.client.reachable((HERE,))
            await where.authority.quarantine(bad.instance, "odd")
            before = await told(peer, naming(bad))
        async with town(tmp_path) as where, attester(where, 3) as later:
            assert await told(later, naming(bad)) == before
            assert (await later.round()).revocation_version == before.version
            await where.authority.release(bad.instance)
            assert (await told(later, naming())).version > before.version

    asyncio.run(story())


def test_who_has_had_no_certificate_or_is_not_under_enforcement_is_not_on_the_list(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bare, attester(where, 2) as bad:
            await where.authority.quarantine(bare.instance, "it never attested")
            await bad.round()
            await where.authority.quarantine(bad.instance, "odd")
            assert (await told(bare, lambda _: True)).denied[0].instance == bad.instance
            (tmp_path / "policies.yaml").write_text(policies(mode="audit"))
            await where.authority.reload_policies()
            await told(bare, naming())

    asyncio.run(story())


def test_to_delete_its_registration_takes_nobody_off_the_list(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as other:
            await bad.round()
            await other.round()
            await where.authority.quarantine(bad.instance, "odd")
            await told(other, naming(bad))
            web = "{name: web}\nspec: {spiffeId"
            (tmp_path / "policies.yaml").write_text(policies().replace(web, web.replace("web", "shop")))
            await where.authority.reload_policies()
            await where.authority.quarantine(other.instance, "odd")
            await told(other, naming(bad, other))

    asyncio.run(story())


def test_an_accomplice_whom_no_policy_binds_keeps_no_denied_one_reached(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            town(tmp_path, rules=OBSERVED) as where,
            attester(where, 1) as bad,
            attester(where, 2, registration="lab") as accomplice,
        ):
            await accomplice.client.reachable((HERE,))
            await accomplice.round()
            await bad.client.reachable((HERE,))
            await bad.round()
            await where.authority.quarantine(bad.instance, "odd")
            assert (await told(accomplice, naming(bad))).denied[0].addresses == (HERE,)

    asyncio.run(story())


def test_a_clone_is_told_like_any_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as peer:
            signed, other = bad.signed(), bad.signed(lambda claims: replace(claims, revocation=7))
            await bad.send(signed)
            with pytest.raises(Refused):
                await posted(where, bad, messages.Attest(other))
            await told(peer, naming(bad))

    asyncio.run(story())


def test_a_liar_takes_no_neighbour_down_and_a_successor_is_to_be_reached_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as liar, attester(where, 2) as neighbour:
            await neighbour.client.reachable((HERE,))
            await neighbour.round()
            await liar.client.reachable((HERE, THERE))
            await liar.round()
            await where.authority.quarantine(liar.instance, "odd")
            assert (await told(neighbour, naming(liar))).denied[0].addresses == (THERE,)
            # What it says now it cannot take back, and still it reaches nobody else's.
            await liar.client.reachable(("127.0.0.1:9444",))
            grown = await told(neighbour, lambda denials: len(denials.denied[0].addresses) == 2)
            assert grown.denied[0].addresses == ("127.0.0.1:9444", THERE)
            # Another instance takes its place: from its first affirmed round on.
            async with attester(where, 3) as successor:
                await successor.client.reachable((THERE,))
                assert (await told(successor, naming(liar))).denied[0].addresses == grown.denied[0].addresses
                await successor.round()
                assert (await told(successor, lambda _: True)).denied[0].addresses == ("127.0.0.1:9444",)

    asyncio.run(story())


def test_a_claim_to_an_address_counts_from_the_first_affirmed_round_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as successor:
            await successor.client.reachable((HERE,))
            await bad.client.reachable((HERE,))
            await bad.round()
            await where.authority.quarantine(bad.instance, "odd")
            assert (await told(successor, naming(bad))).denied[0].addresses == (HERE,)
            await successor.round()
            assert (await told(successor, naming(bad))).denied[0].addresses == ()

    asyncio.run(story())


def test_an_address_stays_known_over_enrolments_until_another_is_said(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as peer:
            await bad.client.reachable((HERE,))
            await bad.client.reachable((THERE,))
            await bad.enrol(Ticket(bad.known.ticket))
            await bad.round()
            await where.authority.quarantine(bad.instance, "odd")
            assert (await told(peer, naming(bad))).denied[0].addresses == (THERE,)

    asyncio.run(story())


@pytest.mark.parametrize(
    "said",
    [
        ("web:9443",),
        ("0.0.0.0:9443",),
        ("[::]:9443",),
        (HERE, HERE),
        (HERE, "127.0.0.1:65536"),
        ("[::1]:09443",),
        ("\x1b[2J",),
        tuple(f"127.0.0.1:{port}" for port in range(1, MOST_ADDRESSES + 2)),
    ],
    ids=lambda said: said[-1],
)
def test_what_is_no_list_of_addresses_is_refused_and_what_was_said_before_stays(
    tmp_path: Path, said: tuple[str, ...]
) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1, session=False) as bad, attester(where, 2) as peer:
            await bad.client.reachable((HERE,))
            with pytest.raises(Refused, match="address") as refused:
                await bad.client.reachable(said)
            assert refused.value.kind == "malformed"
            await bad.round()
            await where.authority.quarantine(bad.instance, "odd")
            assert (await told(peer, naming(bad))).denied[0].addresses == (HERE,)

    asyncio.run(story())


@contextlib.asynccontextmanager
async def session_of_1_1(where: Town, one: Attester) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with http_to(where) as http:
        url = where.where.url + "/v1/session"
        proof = await hello(http, url, one.instance, one.key)
        async with http.ws_connect(url, headers={**proof, versions.HEADER: "1.0-1.1"}) as socket:
            yield socket


def test_a_sidecar_of_1_1_is_never_sent_a_list_nor_answered_with_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2, session=False) as old:
            await bad.round()
            async with attester(where, 3) as peer, session_of_1_1(where, old) as socket:
                await where.authority.quarantine(bad.instance, "odd")
                await told(peer, naming(bad))
                await where.authority.release(bad.instance)
                await told(peer, naming())
                assert await where.authority.attest_now(old.instance)
                frame = messages.decode((await socket.receive()).data, version=Version(1, 1))
                assert isinstance(frame.message, AttestNow)
                await socket.send_bytes(messages.encode(messages.AskDenials(), 1))
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            async with session_of_1_1(where, old) as socket:  # nor when it opens
                assert await where.authority.attest_now(old.instance)
                assert isinstance(messages.decode((await socket.receive()).data).message, AttestNow)

    asyncio.run(story())


def test_a_flood_of_quarantines_becomes_a_few_lists(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 99) as peer, contextlib.AsyncExitStack() as stack:
            flood = [await stack.enter_async_context(attester(where, number, session=False)) for number in range(24)]
            for one in flood:
                await one.round()
            await asyncio.gather(*(where.authority.quarantine(one.instance, "odd") for one in flood))
            lists = 1
            while not naming(*flood)(await told(peer, lambda _: True)):
                lists += 1
            assert lists < len(flood) / 2

    asyncio.run(story())


def test_operators_see_the_list_and_whose_envoy_has_acknowledged_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def status(where: Town, *, as_json: bool = False) -> str:
        await operate.status(where.where.admin, everybody=True, as_json=as_json)
        return capsys.readouterr().out

    async def story() -> None:
        async with town(tmp_path) as where, attester(where, 1) as bad, attester(where, 2) as peer:
            await bad.round()
            await bad.client.reachable((HERE,))
            await where.authority.quarantine(bad.instance, "odd")
            denials = await told(peer, naming(bad))
            await peer.round()
            assert (await where.authority.instance(peer.instance)).revocation == 0
            said = await status(where)
            assert f"Peers refuse {bad.instance} (list {denials.version}, " in said
            assert "Envoys of 0 of 1 fresh ones" in said
            await peer.send(peer.signed(lambda claims: replace(claims, revocation=denials.version)))
            assert (await where.authority.instance(peer.instance)).revocation == denials.version
            assert "Envoys of 1 of 1 fresh ones" in await status(where)
            assert json.loads(await status(where, as_json=True))["denials"] == {
                "version": denials.version,
                "denied": [
                    {
                        "instance": bad.instance.value,
                        "spiffe_id": "spiffe://town.example/web",
                        "cause": denials.denied[0].cause,
                        "leaves": [leaf.fingerprint for leaf in denials.denied[0].leaves],
                        "addresses": [HERE],
                    }
                ],
            }

    asyncio.run(story())
