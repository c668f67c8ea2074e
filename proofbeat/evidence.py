"""`proofbeat evidence ...`: what instances said last, taken out of a running authority."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from proofbeat.options import AdminSocket, Json, exit_with

if TYPE_CHECKING:
    from attestation.claims import Claims
    from authority.api.answers import SignedEvidence
    from authority.calling import CallMade, InstanceCalls

evidence = typer.Typer(help="Evidence.", no_args_is_help=True)


@evidence.command("save")
def evidence_save(
    admin: AdminSocket,
    folder: Annotated[Path, typer.Argument(help="Where to; it is made if it is not there.")],
) -> None:
    """Each instance's latest evidence, with the layers behind it, for `proofbeat policy diff`."""
    exit_with(lambda: _save(admin, folder))


@evidence.command("show")
def evidence_show(
    admin: AdminSocket,
    instance: Annotated[str, typer.Argument(help="As `proofbeat status` shows it, or the beginning of that.")],
    as_json: Json = False,
) -> None:
    """What an instance said last: its layers, who watches them, and which system calls it makes how often."""
    exit_with(lambda: _show(admin, instance, as_json=as_json))


async def _show(socket: Path, asked: str, *, as_json: bool) -> bool:
    from attestation.errors import InvalidInput
    from authority.api.answers import LatestEvidence
    from policies.author import saved
    from proofbeat import admin
    from proofbeat.why import calls_of

    every = (await admin.ask(socket, "GET", "/admin/evidence", LatestEvidence)).evidence
    found = [each for each in every if each.instance.value.startswith(asked)]
    if len(found) != 1:
        what = f"{len(found)} instances that have attested begin so" if found else "no instance that has attested"
        raise InvalidInput(what, where=asked, mend="`proofbeat status` lists them.")
    (told,) = found
    claims = saved.claims_of(saved.Entry(told.instance.value, told.registration, told.evidence, told.at_ms))
    calls = await calls_of(socket, told.instance.value)
    if as_json:
        print(json.dumps(document(told.registration, told.at_ms, claims, calls), indent=1))
    else:
        print("\n".join(lines(told.registration, claims, calls)))
    return True


def document(registration: str, at_ms: int, claims: Claims, calls: InstanceCalls | None) -> dict[str, Any]:
    """The one JSON object. at_ms: when it was appraised, Unix milliseconds."""
    from attestation.plain import plain

    return {
        "instance": claims.instance.value,
        "registration": registration,
        "at_ms": at_ms,
        "sequence": claims.sequence,
        "generation": claims.generation,
        "policy_epoch": claims.policy_epoch,
        "layers": plain(claims.layers),
        "coverage": plain(claims.coverage),
        "calls": plain(calls),
    }


def lines(registration: str, claims: Claims, calls: InstanceCalls | None) -> list[str]:
    """For a person."""
    from proofbeat.why import of_calls

    return [
        f"{claims.instance.value}  {registration}, sequence {claims.sequence}, policy epoch {claims.policy_epoch}",
        *(
            f"  {each.layer:<13}{each.digest[:12]}  {each.items} items, {each.method}, {each.age_ms / 1000:g} s old,"
            f" read in full {each.full_age_ms / 1000:g} s ago"
            for each in claims.layers
        ),
        *(
            f"  {each.name:<22}{each.mechanism}{'' if each.running else ', does not run'}"
            f"{f', {each.lost} lost' if each.lost else ''}{f': {each.detail}' if each.detail else ''}"
            for each in claims.coverage.collectors
        ),
        *of_calls(calls),
        *([f"  {'':9}{', '.join(map(_counted, calls.made))}"] if calls is not None and calls.made else []),
    ]


def _counted(made: CallMade) -> str:
    return f"{made.call} {made.count}" if made.count else made.call


async def _save(socket: Path, folder: Path) -> bool:
    """True when something was saved, and no layer was missing."""
    from authority.api.answers import LatestEvidence
    from proofbeat import admin

    found = (await admin.ask(socket, "GET", "/admin/evidence", LatestEvidence)).evidence
    missing = await _kept(socket, folder, found)
    print(f"{len(found)} instances' evidence is in {folder}")
    for digest, layer, registration in sorted(missing):
        print(f"{registration}: the authority has the layer {layer} not at hand any more ({digest[:12]})")
    return bool(found) and not missing


async def _kept(socket: Path, folder: Path, found: Sequence[SignedEvidence]) -> set[tuple[str, str, str]]:
    """Writes all of it. Returns digest, layer and registration of each body that is missing."""
    from attestation.bodies import DIGEST_OF
    from attestation.errors import Refused
    from policies.author import saved
    from proofbeat import admin

    saved.prepare(folder)
    written: set[str] = set()
    missing: set[tuple[str, str, str]] = set()
    for each in found:
        entry = saved.Entry(each.instance.value, each.registration, each.evidence, each.at_ms)
        saved.write(folder, entry)
        for claim in saved.claims_of(entry).layers:
            if claim.layer not in DIGEST_OF or claim.digest in written:
                continue
            query = urlencode({"registration": entry.registration, "digest": claim.digest})
            try:
                saved.write_body(folder, claim.digest, await admin.fetch(socket, f"/admin/body?{query}"))
                written.add(claim.digest)
            except Refused:
                missing.add((claim.digest, claim.layer, entry.registration))
    return {each for each in missing if each[0] not in written}
