"""The signals whose class a policy can state."""

from __future__ import annotations

import difflib
from typing import Annotated

from pydantic import BeforeValidator

from attestation.signals import Signal


def _name(name: object) -> object:
    known = {each.value: each for each in Signal}
    found = known.get(name) if isinstance(name, str) else None
    if found is None:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else "docs/policy-reference.md lists them"
        raise ValueError(f"no signal is called {name!r}: {mend}")
    if found.fixed:
        raise ValueError(f"the class of {found.value} is not for a policy to state ({found.meaning.rstrip('.')})")
    return found


SignalName = Annotated[Signal, BeforeValidator(_name)]
