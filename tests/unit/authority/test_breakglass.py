"""Which orders let whom through, from the very moment at which policies are others."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import jws
from attestation.breakglass import from_text
from authority.breakglass import BreakGlasses
from authority.rules import Draft, Rules
from authority.store.records import Enrolled
from authority.store.store import Store
from policies.model.load import load
from tests.system.authority.glass import glass_policies, signed
from tests.system.authority.town import TRUST_DOMAIN, numbered
from wire.messages import Standing

SIGNER = jws.Signer(ec.generate_private_key(ec.SECP256R1()))
ENROLLED = Enrolled(numbered(1), "web", "a" * 64, b"key", 1, 0, False, Standing(False, ()))


def ruled(folder: Path, epoch: int, *operators: str) -> Rules:
    file = folder / f"{epoch}.yaml"
    file.write_text(glass_policies(*operators))
    return Draft(load([file])).signed(epoch, SIGNER)


async def nobody(_: Collection[str]) -> None:
    return None


def test_an_order_does_not_hold_under_policies_that_nobody_has_looked_at_yet(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite")
        store.open()
        rules = ruled(tmp_path, 1)
        text = signed()
        begins = from_text(text).order.not_before
        glasses = BreakGlasses(store, TRUST_DOMAIN, lambda: rules, nobody, lambda: begins + 1.0, structlog.get_logger())
        await glasses.start()
        await glasses.apply(text)
        assert glasses.told(ENROLLED, rules.of("web")).orders
        rules = ruled(tmp_path, 2, "bob", "cat")
        assert glasses.told(ENROLLED, rules.of("web")).orders == ()
        store.close()

    asyncio.run(story())
