"""`proofbeat policy schema`: what a kind of document may hold, for editors and other programs."""

from __future__ import annotations

import json

from attestation.errors import InvalidInput
from policies.author.schema import KINDS, schema


async def run(kind: str) -> bool:
    """Raises InvalidInput for a kind that is none."""
    if kind not in KINDS:
        raise InvalidInput(f"{kind!r} is no kind of document", where="KIND", mend=f"Known kinds: {', '.join(KINDS)}.")
    print(json.dumps(schema(kind), indent=1))
    return True
