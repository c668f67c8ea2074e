"""`proofbeat policy explain`: each value that rules a workload, where it comes from, and what it prevailed over."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from attestation.errors import InvalidInput
from attestation.plain import plain
from policies.model.explaining import Explained, Said, Value, explained
from policies.model.load import load
from proofbeat import admin


async def online(socket: Path, asked: str, *, as_json: bool) -> bool:
    """What is in force at an authority. asked: a registration, a SPIFFE ID or an instance."""
    _tell(await admin.ask(socket, "GET", f"/admin/policy?{urlencode({'of': asked})}", Explained), as_json=as_json)
    return True


async def offline(paths: Sequence[Path], root: str, asked: str, *, as_json: bool) -> bool:
    """What would be in force under these documents. asked: a registration or a SPIFFE ID. Raises InvalidInput."""
    governing = load(paths, root).governing
    named = [each for name, each in governing.items() if asked in (name, each.registration.spec.spiffe_id)]
    if len(named) != 1:
        raise InvalidInput(
            f"{asked!r} is {'the identity of several registrations' if named else 'no registration that is ruled'}",
            where=", ".join(map(str, paths)),
            mend=f"Name one of these: {', '.join(sorted(governing))}." if governing else "None is ruled there.",
        )
    _tell(explained(named[0], folders=True), as_json=as_json)
    return True


def _tell(answer: Explained, *, as_json: bool) -> None:
    """As JSON its fields are the keys, and a contract (docs/policies.md)."""
    if as_json:
        print(json.dumps(plain(answer), indent=1))
        return
    print(f"{answer.registration}: {answer.spiffe_id} under {' + '.join(answer.policies)}")
    _print_values(answer.values)
    for each in answer.conflicts:
        print(f"conflict: {each}")


def _print_values(values: Sequence[Value]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("place", "value", "stated by", "prevails over"):
        table.add_column(column, overflow="fold")
    for each in values:
        own = (_said(one) if one.value == each.value else f"{one.value}: {_said(one)}" for one in each.by)
        overruled = (f"{one.value}: {_said(one)}" for one in each.overruled)
        table.add_row(each.place, each.value, "\n".join(own) or "default", "\n".join(overruled))
    # A pipe has no width of its own; places cut in two are no use to anybody.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 400).print(table)


def _said(one: Said) -> str:
    return f"{one.policy}  {one.at}"
