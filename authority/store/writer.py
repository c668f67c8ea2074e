"""One thread that owns the database, and commits for many at once.

Whoever waits for the disk waits together: what arrives while one commit is on its way shares the next. Each piece of
work runs in a savepoint of its own, so that one which fails takes nothing else with it. An answer is given only
after the commit that holds it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from attestation.errors import Unavailable
from authority.store import migrations

_MEND = "Make room on its disk, or mend the file system; what was acknowledged before is kept."
_MEND_DAMAGED = "Let the authority write there; put a backup in its place, or remove it: all sidecars then enrol again."

MOST_TOGETHER = 256
"""Pieces of work that share one commit, at most: bounds how long the first of them waits."""

Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class _Work(Generic[Given]):
    do: Callable[[Connection], Given]
    loop: asyncio.AbstractEventLoop
    given: asyncio.Future[Given]


class Writer:
    """Start it with `open`; `run` a piece of work; `close` finishes what was begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Work[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._engine: Engine | None = None
        self.commits = 0
        """How many commits there were, for whoever wants to know how well they are shared."""

    def open(self) -> None:
        """Creates the file with mode 0600 where there is none. Raises Unavailable when it cannot be used."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._engine = _engine(self._path)
            _check(self._engine)
            migrations.migrate(self._engine)
        except (OSError, SQLAlchemyError, sqlite3.Error) as error:
            raise Unavailable(
                f"the store cannot be opened: {_said(error)}", where=str(self._path), mend=_MEND_DAMAGED
            ) from error
        self._thread.start()

    async def run(self, do: Callable[[Connection], Given]) -> Given:
        """The result of `do`, once it is on disk. Raises what `do` raises, and Unavailable when the disk will not."""
        loop = asyncio.get_running_loop()
        given: asyncio.Future[Given] = loop.create_future()
        self._queue.put(_Work(do, loop, given))
        return await given

    def close(self) -> None:
        """Blocks until what was handed in is done."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._engine is not None:
            self._engine.dispose()

    def _serve(self) -> None:
        if self._engine is None:
            return
        with self._engine.connect() as connection:
            while (batch := self._next_batch()) is not None:
                self._commit(connection, batch)

    def _next_batch(self) -> list[_Work[Any]] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MOST_TOGETHER:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._queue.put(None)  # seen again by the next call, after this batch
                break
            batch.append(work)
        return batch

    def _commit(self, connection: Connection, batch: list[_Work[Any]]) -> None:
        outcomes: list[tuple[_Work[Any], Any, BaseException | None]] = []
        try:
            if len(batch) == 1:
                outcomes.append((batch[0], *_one(connection, batch[0], connection.begin)))
            else:
                with connection.begin():
                    outcomes.extend((work, *_one(connection, work, connection.begin_nested)) for work in batch)
            self.commits += 1
        except Exception as error:  # noqa: BLE001 - the edge of a thread: one that died would leave all later waiting
            refusal = Unavailable(f"the store did not take it: {_said(error)}", where=str(self._path), mend=_MEND)
            outcomes = [(work, None, refusal) for work in batch]
        for loop in {work.loop for work in batch}:
            _hand_over(loop, [each for each in outcomes if each[0].loop is loop])


def _one(
    connection: Connection, work: _Work[Any], scope: Callable[[], AbstractContextManager[Any]]
) -> tuple[Any, BaseException | None]:
    """scope: what is rolled back when the work fails: a savepoint, or the transaction of one that is alone."""
    try:
        with scope():
            return work.do(connection), None
    except (SQLAlchemyError, sqlite3.Error) as error:
        return None, Unavailable(f"the store did not take it: {_said(error)}", where="store", mend=_MEND)
    except Exception as error:  # noqa: BLE001 - the edge of a thread: whatever it is belongs to whoever waits
        return None, error


def _hand_over(loop: asyncio.AbstractEventLoop, outcomes: list[tuple[_Work[Any], Any, BaseException | None]]) -> None:
    def settle() -> None:
        for work, given, error in outcomes:
            if work.given.done():
                continue  # nobody waits any more; what was committed stays so
            if error is None:
                work.given.set_result(given)
            else:
                work.given.set_exception(error)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)


def _check(engine: Engine) -> None:
    """Raises DatabaseError for a file that is damaged: better not to start than to find out at some row."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))


def _said(error: BaseException) -> str:
    """The database's own words, without the statement."""
    return str(error.orig if isinstance(error, DBAPIError) else error)


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "isolation_level": None})

    @event.listens_for(engine, "connect")
    def _prepare(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own BEGIN comes late and breaks savepoints; and a writer says so at once.
        connection.connection.cursor().execute("BEGIN IMMEDIATE")

    return engine
