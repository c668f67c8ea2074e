"""`proofbeat evidence ...`: what instances said last, taken out of a running authority."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from proofbeat.options import AdminSocket, exit_with

if TYPE_CHECKING:
    from authority.api.answers import SignedEvidence

evidence = typer.Typer(help="Evidence.", no_args_is_help=True)


@evidence.command("save")
def evidence_save(
    admin: AdminSocket,
    folder: Annotated[Path, typer.Argument(help="Where to; it is made if it is not there.")],
) -> None:
    """Each instance's latest evidence, with the layers behind it, for `proofbeat policy diff`."""
    exit_with(lambda: _save(admin, folder))


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
