"""`proofbeat forensics ...`: the bundles that a sidecar keeps, read where they lie; no sidecar has to run.

What is in them came from a hostile workload: each text is escaped before it is shown, and whatever does not parse is
counted and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from attestation import forensics as format_of
from attestation import jws, strictjson
from attestation.errors import InvalidInput, ProofbeatError
from attestation.forensics import ABOUT, MANIFEST, SIGNATURE, WORKLOAD, Manifest
from attestation.keys import from_der, thumbprint
from attestation.plain import plain
from attestation.wording import shown
from proofbeat.options import Json, exit_with

forensics = typer.Typer(help="Forensic bundles that a sidecar has kept.", no_args_is_help=True)
State = Annotated[Path, typer.Argument(help="The sidecar's `state` folder.")]

_MOST_FILE = 128 << 20
_MOST_TREE = 200
"""Processes that are shown to a person; --json has all."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One, read. faults: why it is not what its sidecar wrote; empty where it is."""

    name: str
    manifest: Manifest | None
    faults: tuple[str, ...]
    key: str = ""


@forensics.command("list")
def listed(state: State, as_json: Json = False) -> None:
    """The bundles, the oldest first."""
    exit_with(lambda: _list(state, as_json=as_json))


@forensics.command("show")
def show(
    state: State,
    name: Annotated[str, typer.Argument(help="As `list` shows it, or `latest`.")] = "latest",
    as_json: Json = False,
) -> None:
    """What one holds; and whether it is still what its sidecar wrote: else the exit code is 1."""
    exit_with(lambda: _show(state, name, as_json=as_json))


async def _list(state: Path, *, as_json: bool) -> bool:
    bundles = [read(each) for each in _folders(state)]
    if as_json:
        print(json.dumps({"bundles": [_summary(each) for each in bundles]}, indent=1))
        return True
    for each in bundles:
        print(f"{shown(each.name)}  {'; '.join(_told(each))}")
    if not bundles:
        print(f"no bundles in {state}")
    return True


async def _show(state: Path, name: str, *, as_json: bool) -> bool:
    folder = _chosen(state, name)
    bundle = read(folder)
    about, found = _about(folder), list(records(folder))
    if as_json:
        print(json.dumps({**_summary(bundle), "about": about, "workload": found}, indent=1))
    else:
        print("\n".join(_lines(bundle, about, found)))
    return not bundle.faults


def _folders(state: Path) -> list[Path]:
    folder = state / "forensics"
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}", where=str(folder), mend="Ask as the sidecar's user, or as root."
        ) from error


def _chosen(state: Path, name: str) -> Path:
    known = {each.name: each for each in _folders(state)}
    chosen = next(reversed(known.values()), None) if name == "latest" else known.get(name)
    if chosen is None:
        raise InvalidInput("no such bundle", where=f"{state}: {name}", mend="`proofbeat forensics list` names them.")
    return chosen


def read(folder: Path) -> Bundle:
    """Everything that is wrong with it, not the first only."""
    try:
        content = _content(folder / MANIFEST)
        manifest = format_of.unpacked(content, str(folder / MANIFEST))
    except (OSError, InvalidInput) as error:
        return Bundle(folder.name, None, (f"its manifest cannot be read: {error}",))
    faults, key = [], ""
    try:
        public = from_der(bytes.fromhex(manifest.key))
        key = thumbprint(public)
        if jws.open_signed(_content(folder / SIGNATURE).decode(), public, kind=format_of.KIND) != content:
            faults.append("its manifest is another one than was signed")
    except (OSError, ValueError, ProofbeatError):
        faults.append("its manifest's signature does not hold")
    for part in manifest.parts:
        try:
            found = _content(folder / Path(part.name).name)
        except OSError:
            faults.append(f"{part.name} is missing")
            continue
        if (len(found), hashlib.sha256(found).hexdigest()) != (part.bytes, part.digest):
            faults.append(f"{part.name} is another file than was signed")
    return Bundle(folder.name, manifest, tuple(faults), key)


def _content(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as opened:
        return opened.read(_MOST_FILE)


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = strictjson.loads(_content(folder / ABOUT))
    except (OSError, InvalidInput):
        return {}
    return about if isinstance(about, dict) else {}


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """What was collected of the workload, as far as it parses."""
    try:
        lines = _content(folder / WORKLOAD).split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            record = strictjson.loads(line)
        except InvalidInput:
            continue
        if isinstance(record, dict):
            yield record


def _summary(bundle: Bundle) -> dict[str, Any]:
    """Its keys are a contract (docs/forensics.md)."""
    manifest = None if bundle.manifest is None else plain(bundle.manifest)
    return {
        "name": bundle.name,
        "intact": not bundle.faults,
        "faults": list(bundle.faults),
        "key_thumbprint": bundle.key,
        "manifest": manifest,
    }


def _told(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    if manifest is None:
        return list(bundle.faults)
    told = [
        f"{manifest.violation_class}: {manifest.kind}: {shown(manifest.subject)}",
        f"contained: {manifest.contained}",
        *([] if manifest.complete else ["cut short"]),
        *([manifest.refusal] if manifest.refusal else []),
    ]
    return [*told, *bundle.faults]


def _lines(bundle: Bundle, about: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    """For a person."""
    manifest = bundle.manifest
    yield shown(bundle.name)
    yield f"  {'intact' if not bundle.faults else 'NOT INTACT: ' + '; '.join(bundle.faults)}"
    if manifest is not None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.made_ms // 1000))
        yield f"  {at}  {manifest.instance}  {shown(manifest.spiffe_id)}  policy epoch {manifest.policy_epoch}"
        yield f"  {'; '.join(_told(bundle))}"
        yield f"  signed by {bundle.key}"
    for cause in _mappings(about.get("causes")):
        yield f"  cause     {shown(str(cause.get('kind')))}: {shown(str(cause.get('text')))}"
    for fact in _mappings(about.get("facts"))[-_LATEST:]:
        yield f"  fact      {shown(str(fact.get('is')))} {shown(str(fact.get('path', fact.get('detail', ''))))}"
    yield from _tree(records)
    kinds = [str(each.get("is")) for each in records]
    counts = (f"{kinds.count(kind)} {shown(kind)}" for kind in dict.fromkeys(kinds))
    yield f"  holds     {', '.join(counts) or 'nothing'}; --json shows it"


_LATEST = 6


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _tree(records: list[dict[str, Any]]) -> Iterator[str]:
    """Indented by parent. One whose parent is not here begins anew; a circle, which no kernel shows, is cut."""
    processes = {str(each.get("pid")): each for each in records if each.get("is") == "process"}
    arguments = {str(each.get("pid")): each.get("arguments") for each in records if each.get("is") == "arguments"}
    below: dict[str, list[str]] = {}
    for pid, process in processes.items():
        below.setdefault(_parent(process), []).append(pid)
    waiting = [(pid, 0) for pid, each in reversed(processes.items()) if _parent(each) not in processes]
    told: set[str] = set()
    while waiting and len(told) < _MOST_TREE:
        pid, depth = waiting.pop()
        if pid in told:
            continue
        told.add(pid)
        line = arguments.get(pid)
        called = " ".join(map(str, line)) if isinstance(line, list) and any(line) else processes[pid].get("exe")
        yield f"  process   {'  ' * min(depth, 20)}{shown(pid)} {shown(str(called), _MOST_SHOWN)}"
        waiting += [(child, depth + 1) for child in reversed(below.get(pid, []))]
    if len(told) < len(processes):
        yield f"  process   and {len(processes) - len(told)} more"


_MOST_SHOWN = 160


def _parent(process: dict[str, Any]) -> str:
    status = process.get("status")
    return str(status.get("PPid")) if isinstance(status, dict) else ""
