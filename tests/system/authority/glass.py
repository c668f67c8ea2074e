"""A town whose policy names three operators, and the orders that they sign."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from attestation.breakglass import Order, Reach, Scope, Signed, to_text
from attestation.keys import SigningKey
from tests.system.authority.town import TRUST_DOMAIN, policies
from tests.unit.policies.operators import KEYS, rules

WEB, API = f"spiffe://{TRUST_DOMAIN}/web", f"spiffe://{TRUST_DOMAIN}/api"
ADA, BOB, CAT = KEYS.values()


def glass_policies(*names: str, mode: str = "enforce", **changes: Any) -> str:
    """The town's, with these operators of the three, or all."""
    said = json.dumps(rules(*names, **changes))
    return policies(mode=mode).replace("  files: {include", f"  breakGlass: {said}\n  files: {{include", 1)


def order(**changes: Any) -> Order:
    """For `web`, from now on for half an hour. ahead, lasts: seconds, instead of the times."""
    now = int(time.time())
    begins = now + changes.pop("ahead", 0)
    said: dict[str, Any] = {
        "trust_domain": TRUST_DOMAIN,
        "scope": Scope(Reach.REGISTRATIONS, ("web",), (WEB,)),
        "issued_at": min(now, begins),
        "not_before": begins,
        "not_after": begins + changes.pop("lasts", 1800),
        "reason": "a release that nobody referenced",
        "least_epoch": 1,
        "salt": secrets.token_hex(16),
        **changes,
    }
    return Order(**said)


def signed(*by: SigningKey, **changes: Any) -> str:
    """Such an order, by these operators or by ada and bob."""
    document = Signed(order(**changes))
    for key in by or (ADA, BOB):
        document = document.with_signature(key)
    return to_text(document)
