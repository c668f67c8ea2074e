"""The command: look, judge, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from attestation.errors import InvalidInput
from proofbeat.doctor.findings import Check, Facts, Health, checks, mend_all


async def run(config: Path | None, *, as_json: bool) -> bool:
    """True when nothing is lacking. config: settings to try as well. Raises InvalidInput elsewhere than on Linux."""
    if sys.platform != "linux":
        raise InvalidInput("Proofbeat measures through the Linux kernel", where=sys.platform, mend="Run it on Linux.")
    from proofbeat.doctor import probe, settings

    # Settings that do not parse are told first: whoever names a file has a question about it.
    tried = await settings.checks(config) if config is not None else ()
    facts = await probe.facts(Path.cwd())
    found = (*tried, *checks(facts))
    if as_json:
        print(json.dumps(document(facts, found), indent=1))
    else:
        print("\n".join(lines(facts, found)))
    return all(each.health is Health.OK for each in found)


def document(facts: Facts, found: Sequence[Check]) -> dict[str, object]:
    """The one JSON object; its keys are a contract."""
    return {
        "kernel": facts.release,
        "machine": facts.machine,
        "python": facts.python,
        "user": facts.user,
        "capabilities": facts.capabilities,
        "mechanisms": facts.mechanisms,
        "works": all(each.health is not Health.BROKEN for each in found),
        "complete": all(each.health is Health.OK for each in found),
        "checks": [{**asdict(each), "mend": list(each.mend)} for each in found],
        "mend": list(mend_all(found, facts)),
    }


def lines(facts: Facts, found: Sequence[Check]) -> list[str]:
    """For a person."""
    said = [f"Linux {facts.release} on {facts.machine}, Python {facts.python}, user {facts.user}"]
    for each in found:
        said.append(f"{each.health:8} {each.name:18} {each.found}")
        if each.costs:
            said.append(f"{'':9}{'costs':19}{each.costs}")
        said += [f"{'':9}{'' if number else 'mend':19}{mend}" for number, mend in enumerate(each.mend)]
    said += ["", _verdict(found)]
    if granted := mend_all(found, facts):
        said += ["All that is missing by capability, in one go:", *(f"  {each}" for each in granted)]
    return said


def _verdict(found: Sequence[Check]) -> str:
    broken = [each.name for each in found if each.health is Health.BROKEN]
    limited = [each.name for each in found if each.health is Health.LIMITED]
    if broken:
        return f"Proofbeat cannot work like this: {', '.join(broken)}."
    return f"Proofbeat works here, in a weaker way: {', '.join(limited)}." if limited else "Nothing is lacking."
