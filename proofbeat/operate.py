"""What an operator does to a running authority, and to documents before it reads them. Each answers yes or no."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proofbeat import admin


async def status(socket: Path, *, as_json: bool) -> bool:
    """True when every instance is fresh."""
    found: list[dict[str, Any]] = await admin.ask(socket, "GET", "/admin/instances")
    if as_json:
        print(json.dumps({"instances": found}, indent=1))
    else:
        _print_instances(found)
    return all(each.get("state") == "fresh" for each in found)


async def token(socket: Path, registration: str, lifetime: str) -> bool:
    print(await admin.create_token(socket, registration, lifetime))
    return True


async def quarantine(socket: Path, instance: str, reason: str) -> bool:
    await admin.ask(socket, "POST", "/admin/quarantine", {"instance": instance, "cause": reason})
    print(f"{instance} is quarantined")
    return True


async def release(socket: Path, instance: str) -> bool:
    await admin.ask(socket, "POST", "/admin/release", {"instance": instance})
    print(f"{instance} is released; it opens after its next full measurement")
    return True


async def build_references(name: str, pid: int, include: tuple[str, ...], volatile: tuple[str, ...]) -> bool:
    from proofbeat import references

    print(references.to_yaml(await references.build(name, pid, include, volatile)), end="")
    return True


async def check_policies(paths: Sequence[Path]) -> bool:
    from policies.model.load import load

    found = load(paths)
    for name, governing in sorted(found.governing.items()):
        spec = governing.registration.spec
        print(f"{name}: {spec.spiffe_id} under {spec.policy} ({governing.policy.spec.mode}), against {spec.references}")
    return True


def _print_instances(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("instance", "SPIFFE ID", "state", "tier", "causes"):
        table.add_column(column)
    for each in found:
        causes = "; ".join(str(cause.get("text", "")) for cause in each.get("causes", []))
        table.add_row(
            str(each.get("instance")), str(each.get("spiffe_id")), str(each.get("state")), str(each.get("tier")), causes
        )
    Console().print(table)
