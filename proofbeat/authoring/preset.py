"""`proofbeat policy preset`: the policies that come with Proofbeat, to begin with."""

from __future__ import annotations

import json

from policies.author import presets


async def run(name: str | None, *, as_json: bool) -> bool:
    """One as it is written, or all by what they are for. Raises InvalidInput for a name that none has."""
    found = presets.presets() if name is None else (presets.preset(name),)
    if as_json:
        told = [{"name": each.name, "about": each.about, "text": each.text} for each in found]
        print(json.dumps({"presets": told}, indent=1))
    elif name is not None:
        print(found[0].text, end="")
    else:
        for each in found:
            print(f"{each.name:10}{each.about}")
    return True
