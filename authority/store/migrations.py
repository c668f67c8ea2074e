"""Stores of earlier versions, brought to the tables of this one: in one transaction, or not at all.

A dozen lines of our own instead of alembic: the steps are few, and the writer thread is the only one to take them.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Engine, Inspector, insert, inspect, select, text, update

from attestation.errors import Unavailable
from authority.store.schema import metadata, versions

CURRENT = 6


def migrate(engine: Engine) -> None:
    """Creates what is missing. Raises Unavailable for a store that a later Proofbeat wrote."""
    with engine.begin() as db:
        version = _version(inspect(db), db)
        if version > CURRENT:
            raise Unavailable(
                f"its tables are version {version}, and this Proofbeat knows {CURRENT}",
                where=str(engine.url.database),
                mend="Run the Proofbeat that wrote it, or a later one.",
            )
        for step in range(version, CURRENT):
            _STEPS[step](db)
        metadata.create_all(db)
        if db.execute(update(versions).values(version=CURRENT)).rowcount == 0:
            db.execute(insert(versions), {"version": CURRENT})


def _version(found: Inspector, db: Connection) -> int:
    """A new store is at once what this program makes; one without a version is from before there was any."""
    if not found.has_table("instances"):
        return CURRENT
    if not found.has_table(versions.name):
        return 1
    return int(db.execute(select(versions.c.version)).scalar_one())


def _history(db: Connection) -> None:
    """1 to 2: each instance's state, as far as its last round tells it; its history begins now."""
    for column in ("state VARCHAR(16) NOT NULL DEFAULT ''", "since_ms BIGINT NOT NULL DEFAULT 0"):
        db.execute(text(f"ALTER TABLE instances ADD COLUMN {column}"))
    db.execute(text("ALTER TABLE instances ADD COLUMN left_ms BIGINT NOT NULL DEFAULT 0"))
    db.execute(
        text(
            "UPDATE instances SET since_ms = CASE WHEN last_round_ms > 0 THEN last_round_ms ELSE enrolled_ms END, "
            "state = CASE WHEN quarantined THEN 'quarantined' WHEN lease_end_ms > 0 THEN 'fresh' "
            "WHEN last_round_ms > 0 THEN 'stale' ELSE 'unattested' END"
        )
    )


def _denials(db: Connection) -> None:
    """2 to 3: nobody's Envoy has acknowledged a list of denials, because there was none."""
    db.execute(text("ALTER TABLE instances ADD COLUMN revocation BIGINT NOT NULL DEFAULT 0"))


def _served(db: Connection) -> None:
    """3 to 4: nobody's evidence has said what its Envoy serves."""
    db.execute(text("ALTER TABLE instances ADD COLUMN served VARCHAR(40) NOT NULL DEFAULT ''"))


def _break_glass(db: Connection) -> None:
    """4 to 5: no round was let through by an order, because there was none."""
    db.execute(text("ALTER TABLE rounds ADD COLUMN break_glass VARCHAR(35) NOT NULL DEFAULT ''"))


def _held(db: Connection) -> None:
    """5 to 6: nobody was held back, because policy could not say so."""
    db.execute(text("ALTER TABLE rounds ADD COLUMN held VARCHAR(34) NOT NULL DEFAULT ''"))
    db.execute(text("CREATE INDEX instances_of ON instances (registration)"))


_STEPS: dict[int, Callable[[Connection], None]] = {1: _history, 2: _denials, 3: _served, 4: _break_glass, 5: _held}
