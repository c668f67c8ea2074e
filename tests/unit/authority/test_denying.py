"""The list as it is kept: over a real store and a real CA, while time goes on and the disk does not always answer."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import keys, results
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector
from authority.denials import SKEW_MS
from authority.denying import Denying
from authority.issuer import ca as authorities
from authority.issuer.issuer import Issuer
from authority.store.enrolments import Application
from authority.store.records import Accepted, Candidate
from authority.store.store import Store
from tests.unit.authority.test_denials import REGISTERED, numbered
from wire.messages import MOST_ADDRESSES, MOST_DENIED, Cause, Denials

NOW_MS = 1_800_000_000_000
LEASE_MS = 60_000
HERE, THERE = "192.0.2.1:9443", "192.0.2.2:9443"
LEAF_KEY = keys.public_der(ec.generate_private_key(ec.SECP256R1()).public_key())


class Lines:
    """Where log lines go."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def warning(self, event: str, **fields: Any) -> None:
        self._said.put_nowait({"event": event, **fields})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return await self._said.get()

    @property
    def silent(self) -> bool:
        """Nothing was said that was not read."""
        return self._said.empty()


class House:
    """A store, a CA and the list, at a time that a test sets."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = NOW_MS
        self.path = folder / "store.sqlite"
        self.store = Store(self.path, self.clock)
        begin = authorities.utc(NOW_MS / 1000) - timedelta(minutes=10)
        self.issuer = Issuer(
            authorities.load(folder / "ca", allow_demo=False)
            if authorities.exists(folder / "ca")
            else authorities.generate(folder / "ca", "Town", 86_400, now=begin)
        )
        self.told: asyncio.Queue[Denials] = asyncio.Queue()
        self.lines = Lines()
        self.denying = Denying(
            self.store,
            self.issuer,
            lambda: REGISTERED,
            self.told.put_nowait,
            lambda: self.now_ms / 1000,
            self.lines,
        )

    def clock(self) -> float:
        return self.now_ms / 1000

    async def enrol(self, number: int, registration: str = "web") -> None:
        token = f"token {number}"
        await self.store.add_token(token, registration, expires_ms=self.now_ms + 1, now_ms=self.now_ms)
        application = Application(numbered(number), "a" * 64, b"key", token, "", f"ticket {number}", unclean=False)
        await self.store.enrol(application, {registration: ()}, self.now_ms)

    async def round(self, number: int, sequence: int = 1, *, affirms: bool = True) -> str:
        """Returns the fingerprint of the certificate that it earns if it affirms."""
        tier, end_ms = Tier.AFFIRMING if affirms else Tier.WARNING, self.now_ms + LEASE_MS
        web = SpiffeId("town.example", "/web")
        result = Result(
            tier,
            TrustVector(configuration=tier),
            b"n" * 8,
            self.now_ms // 1000,
            end_ms // 1000,
            "town",
            numbered(number),
            web,
            "enforce",
            0,
            1,
            "a" * 64,
        )
        candidate = Candidate(
            numbered(number),
            "a" * 64,
            sequence,
            0,
            "e" * 64,
            full=True,
            tier=tier,
            result=results.payload(result),
            leaf_key=LEAF_KEY,
            not_before=self.now_ms // 1000 - 30,
            lease_end_ms=end_ms,
            cause=None,
        )
        accepted = await self.store.accept_round(candidate, self.now_ms)
        assert isinstance(accepted, Accepted)
        return self.issuer.fingerprint(accepted, web, numbered(number))

    async def quarantine(self, number: int, cause: str = "c-1") -> None:
        told = Cause(f"{cause} {number}", "order", "odd", self.now_ms, 0)
        await self.store.record_cause(numbered(number), told, binding=True, now_ms=self.now_ms)
        self.denying.changed()

    async def next(self) -> Denials:
        async with asyncio.timeout(20):
            return await self.told.get()


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    one = House(folder)
    one.store.open()
    try:
        await one.denying.start()
        assert one.told.get_nowait() == one.denying.current
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(one.denying.run())
            yield one
            running.cancel()
    finally:
        one.store.close()


def test_an_instance_leaves_the_list_when_its_last_certificate_is_over_for_the_slowest_clock(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            first = await home.round(1)
            home.now_ms += 20_000
            second = await home.round(1, 2)
            await home.quarantine(1)
            told = await home.next()
            assert [leaf.fingerprint for leaf in told.denied[0].leaves] == [second, first]
            # The first certificate's end alone makes no other list, and its round is kept as long as it may be told.
            await home.store.forget_rounds(home.now_ms + 1, over_ms=home.now_ms - SKEW_MS)
            home.now_ms = NOW_MS + LEASE_MS + SKEW_MS
            home.denying.aged()
            home.now_ms = NOW_MS + 20_000 + LEASE_MS + SKEW_MS - 1
            home.denying.aged()
            await home.enrol(2)
            await home.round(2)
            await home.quarantine(2)
            both = await home.next()
            assert [len(each.leaves) for each in both.denied] == [1, 1]
            home.now_ms += 1
            home.denying.aged()
            last = await home.next()
            assert [each.instance for each in last.denied] == [numbered(2)]
            assert told.version < both.version < last.version

    asyncio.run(story())


def test_rounds_are_kept_while_their_certificates_may_be_valid(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            leaves = [await home.round(1, sequence) for sequence in (1, 2, 3)]
            await home.store.forget_rounds(home.now_ms + 1, over_ms=home.now_ms - SKEW_MS)
            await home.quarantine(1)
            assert [leaf.fingerprint for leaf in (await home.next()).denied[0].leaves] == leaves[::-1]

    asyncio.run(story())


def test_a_second_cause_changes_nothing_and_a_cause_after_a_release_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            await home.round(1)
            await home.quarantine(1, "c-1")
            assert (await home.next()).denied[0].cause == "c-1 1"
            await home.enrol(2)
            await home.round(2)
            home.now_ms += 1
            await home.quarantine(1, "c-2")
            await home.quarantine(2)
            both = await home.next()
            assert [each.cause for each in both.denied] == ["c-1 2", "c-1 1"]
            await home.store.release(numbered(1), ["c-1 1", "c-2 1"], "order")
            await home.quarantine(1, "c-3")
            assert {each.cause for each in (await home.next()).denied} == {"c-3 1", "c-1 2"}

    asyncio.run(story())


def test_the_version_goes_on_after_the_list_was_empty_and_the_process_another(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            await home.round(1)
            await home.quarantine(1)
            before = await home.next()
        async with house(tmp_path) as home:
            assert home.denying.current == before
            home.now_ms += LEASE_MS + SKEW_MS
            home.denying.aged()
            empty = await home.next()
            assert (empty.version > before.version, empty.denied) == (True, ())
        async with house(tmp_path) as home:
            # Its clock has gone back: the certificate counts once more, and that is another list.
            assert (home.denying.version, len(home.denying.current.denied)) == (empty.version + 1, 1)

    asyncio.run(story())


def test_a_store_that_is_lost_begins_with_a_version_that_nobody_has_heard(tmp_path: Path) -> None:
    async def story(began_ms: int) -> Denials:
        async with house(tmp_path) as home:
            home.now_ms = began_ms
            assert home.denying.version == 0
            await home.enrol(1)
            await home.round(1)
            await home.quarantine(1)
            return await home.next()

    before = asyncio.run(story(NOW_MS))
    for file in tmp_path.glob("store.sqlite*"):
        file.unlink()
    assert asyncio.run(story(NOW_MS + 1_000)).version > before.version


def test_a_store_that_does_not_answer_leaves_the_list_and_is_asked_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            await home.round(1)
            with sqlite3.connect(home.path) as db:
                db.execute("ALTER TABLE denials RENAME TO lost")
            await home.quarantine(1)
            assert "denials" in (await home.lines.next())["why"]
            assert home.denying.version == 0
            with sqlite3.connect(home.path) as db:
                db.execute("ALTER TABLE lost RENAME TO denials")
            assert len((await home.next()).denied) == 1

    asyncio.run(story())


def test_more_instances_than_a_list_may_name_are_told_to_the_operator_and_the_latest_to_peers(tmp_path: Path) -> None:
    def copy(db: sqlite3.Connection, number: int) -> None:
        """Instance 0 and its round, under another name."""
        for table in ("instances", "rounds"):
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "instance"]
            columns = ", ".join(names)
            db.execute(
                f"INSERT INTO {table} (instance, {columns}) SELECT ?, {columns} FROM {table} WHERE instance = ?",  # noqa: S608 - the names of our own columns
                (numbered(number).value, numbered(0).value),
            )

    async def one_later_than_the_other(home: House, number: int) -> None:
        told = Cause(f"c-{number}", "order", "odd", home.now_ms, 0)
        await home.store.record_cause(numbered(number), told, binding=True, now_ms=home.now_ms + number)

    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(0)
            await home.round(0)
            with sqlite3.connect(home.path) as db:
                for number in range(1, MOST_DENIED + 2):
                    copy(db, number)
            await asyncio.gather(*(one_later_than_the_other(home, number) for number in range(MOST_DENIED + 2)))
            home.denying.changed()
            denied = (await home.next()).denied
            assert [each.instance for each in denied] == [numbered(number) for number in range(MOST_DENIED + 1, 1, -1)]
            assert (await home.lines.next())["instances"] == 2

    asyncio.run(story())


async def _said_goodbye(home: House) -> None:
    await home.round(2)
    await home.store.end_run(numbered(2), "a" * 64, clean=True)


async def _is_late(home: House) -> None:
    home.now_ms -= LEASE_MS
    await home.round(2)
    home.now_ms += LEASE_MS


async def _is_quarantined(home: House) -> None:
    await home.round(2)
    await home.quarantine(2)


CLAIMS: dict[str, tuple[str, Callable[[House], Awaitable[object]], bool]] = {
    "it is affirmed": ("api", lambda home: home.round(2), True),
    "it was never appraised": ("api", lambda home: asyncio.sleep(0), False),
    "it is not affirmed": ("api", lambda home: home.round(2, affirms=False), False),
    "its lease is over": ("api", _is_late, False),
    "it said goodbye": ("api", _said_goodbye, False),
    "it is quarantined": ("api", _is_quarantined, False),
    "nothing is enforced and it is another identity's": ("lab", lambda home: home.round(2), False),
    "nothing is enforced and it is the same identity's": ("web-lab", lambda home: home.round(2, affirms=False), True),
    "nothing is enforced and it is late": ("web-lab", _is_late, False),
    "nothing is enforced and it is quarantined": ("web-lab", _is_quarantined, False),
    "its registration is deleted": ("deleted", lambda home: home.round(2), False),
}


@pytest.mark.parametrize(("registration", "happens", "counts"), CLAIMS.values(), ids=CLAIMS)
def test_another_ones_claim_to_an_address_counts_while_it_is_live(
    tmp_path: Path, registration: str, happens: Callable[[House], Awaitable[object]], counts: bool
) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            await home.round(1)
            await home.store.listens(numbered(1), {HERE})
            await home.enrol(2, registration)
            await home.store.listens(numbered(2), {HERE})
            await happens(home)
            await home.quarantine(1)
            denied = (await home.next()).denied
            (one,) = (each for each in denied if each.instance == numbered(1))
            assert one.addresses == (() if counts else (HERE,))

    asyncio.run(story())


def test_to_delete_its_registration_takes_nobody_off_the_list(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1, "deleted")
            await home.round(1)
            await home.quarantine(1)
            assert [each.instance for each in (await home.next()).denied] == [numbered(1)]

    asyncio.run(story())


def test_whoever_is_enforced_nowhere_is_on_no_list(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            for number, registration in ((1, "lab"), (2, "web")):
                await home.enrol(number, registration)
                await home.round(number)
                await home.quarantine(number)
            assert [each.instance for each in (await home.next()).denied] == [numbered(2)]

    asyncio.run(story())


def test_a_claim_that_spares_a_denied_one_is_told_to_the_operator_once_with_both_names(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            for number in (1, 2, 3):
                await home.enrol(number)
                await home.round(number)
            await home.store.listens(numbered(1), {HERE})
            await home.store.listens(numbered(2), {HERE, THERE})
            await home.quarantine(1)
            assert (await home.next()).denied[0].addresses == ()
            said = await home.lines.next()
            assert said.pop("mend")
            spared = {"instance": str(numbered(1)), "claimant": str(numbered(2)), "address": HERE}
            assert said == {"event": "address-spared", **spared}
            # Another list tells only what is new on it.
            await home.store.listens(numbered(1), {THERE})
            await home.quarantine(3)
            assert len((await home.next()).denied) == 2
            assert (await home.lines.next())["address"] == THERE
            assert home.lines.silent

    asyncio.run(story())


def test_who_listens_where_matters_at_once_where_the_list_names_the_address(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            for number in (1, 2):
                await home.enrol(number)
                await home.round(number)
            await home.store.listens(numbered(1), {HERE})
            await home.quarantine(1)
            assert (await home.next()).denied[0].addresses == (HERE,)
            await home.store.listens(numbered(2), {HERE})
            successor = await home.store.load(numbered(2))
            assert successor is not None
            home.denying.listens(successor)
            assert (await home.next()).denied[0].addresses == ()
            await home.store.listens(numbered(1), {THERE})
            denied = await home.store.load(numbered(1))
            assert denied is not None
            home.denying.listens(denied)
            assert (await home.next()).denied[0].addresses == (THERE,)

    asyncio.run(story())


def test_who_is_quarantined_adds_addresses_only_up_to_the_bound(tmp_path: Path) -> None:
    async def story() -> None:
        async with house(tmp_path) as home:
            await home.enrol(1)
            mine = {"192.0.2.1:1"}
            assert await home.store.listens(numbered(1), {"192.0.2.9:9"}) == {"192.0.2.9:9"}
            assert await home.store.listens(numbered(1), mine) == mine
            await home.quarantine(1)
            many = {f"192.0.2.2:{port}" for port in range(1, MOST_ADDRESSES + 1)}
            known = await home.store.listens(numbered(1), many)
            assert len(known) == MOST_ADDRESSES
            assert mine < known
            assert await home.store.listens(numbered(1), ()) == known
            loaded = await home.store.load(numbered(1))
            assert loaded is not None
            assert loaded.addresses == known

    asyncio.run(story())
