"""What a hostile authority says unasked, each with what the sidecar is to say to that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attestation import jws, release
from attestation.instance import InstanceId
from attestation.release import ReleaseOrder
from authority.issuer.ca import Ca
from tests.system.hostile.authority import TRUST_DOMAIN, HostileAuthority, another_key, made_ca
from tests.system.hostile.moves import SOMEBODY
from wire.messages import Denials, Denied, DeniedLeaf, PolicyChanged, Push, Released


@dataclass(frozen=True)
class Pushed:
    """What the authority says unasked, and a part of what the sidecar says to that."""

    name: str
    make: Callable[[HostileAuthority], Push]
    says: str
    event: str = "push-refused"

    def __str__(self) -> str:
        return self.name


def _policy(name: str, says: str, **changes: Any) -> Pushed:
    """A newer epoch, and laxer, but for what makes it unacceptable."""

    def make(authority: HostileAuthority) -> Push:
        lax = {**authority.spec, "mode": "observe"}
        made = {"epoch": authority.epoch + 1, "spec": lax, **changes}
        return PolicyChanged(authority.epoch + 1, authority.document(**made))

    return Pushed(name, make, says)


def _field(authority: HostileAuthority) -> Push:
    spec = {**authority.spec, "mode": "observe", "leniency": "all"}
    return PolicyChanged(authority.epoch + 1, authority.document(epoch=authority.epoch + 1, spec=spec))


def _dialect(authority: HostileAuthority) -> Push:
    policy = {"apiVersion": "proofbeat.dev/v2", "kind": "AttestationPolicy", "metadata": {"name": "web"}}
    return PolicyChanged(authority.epoch + 1, authority.document(epoch=authority.epoch + 1, policy=policy))


def _foreign(authority: HostileAuthority) -> Push:
    document = authority.document(jws.Signer(another_key()), epoch=authority.epoch + 1)
    return PolicyChanged(authority.epoch + 1, document)


def _same_epoch(authority: HostileAuthority) -> Push:
    lax = {**authority.spec, "mode": "observe"}
    return PolicyChanged(authority.epoch, authority.document(spec=lax))


def order(instance: InstanceId | None, *causes: str, foreign: bool = False) -> Callable[[HostileAuthority], str]:
    """A release of these causes. instance: None for the sidecar's own. foreign: signed by somebody else."""

    def make(authority: HostileAuthority) -> str:
        released = ReleaseOrder(instance or authority.enrolled or SOMEBODY, causes, int(time.time()))
        return release.sign(released, jws.Signer(another_key()) if foreign else authority.signer)

    return make


def _released(instance: InstanceId | None, *, foreign: bool = False) -> Callable[[HostileAuthority], Push]:
    return lambda authority: Released(order(instance, "c-1", foreign=foreign)(authority))


def _list(name: str, says: str, make: Callable[[HostileAuthority], Denials]) -> Pushed:
    return Pushed(name, make, says)


def _naming(fingerprint: str) -> Denied:
    leaf = DeniedLeaf(b"\x07", fingerprint, 0)
    return Denied(SOMEBODY, f"spiffe://{TRUST_DOMAIN}/api", "c-0", (leaf,), ())


def _another_ca() -> Ca:
    with TemporaryDirectory() as folder:
        return made_ca(Path(folder))


PUSHES = (
    _list("a list whose CRL another CA signed", "another authority", lambda one: one.denials(1, ca=_another_ca())),
    _list("a list without a CRL", "a CRL that does not parse", lambda _: Denials(1, (), b"")),
    _list("a list whose CRL names nobody of it", "other certificates", lambda one: one.denials(1, _naming("0" * 64))),
    _list(
        "a list with a fingerprint that no filter finds",
        "what no certificate has",
        lambda one: one.denials(1, _naming("A" * 64), serials=(7,)),
    ),
    _policy("a policy of a lower epoch", "policy epoch 1 after 5", epoch=1),
    _policy(
        "the policy of another identity",
        f"the policy of spiffe://{TRUST_DOMAIN}/api",
        identity=f"spiffe://{TRUST_DOMAIN}/api",
    ),
    _policy("a policy with a part too many", "does not understand: it has the parts", also={}),
    _policy("a policy whose epoch is infinite", "does not understand", epoch=float("inf")),
    Pushed("a policy with an unknown field", _field, "does not understand: AttestationPolicy.spec.leniency"),
    Pushed("a policy in another dialect", _dialect, "does not understand: AttestationPolicy.apiVersion"),
    Pushed("a policy signed by another key", _foreign, "does not verify"),
    Pushed("another policy under the same epoch", _same_epoch, "another policy under the same epoch 5"),
    Pushed("a policy that is none", lambda _: PolicyChanged(9, "none"), "does not verify"),
    Pushed("a release signed by another key", _released(None, foreign=True), "does not verify"),
    Pushed("a release that is none", lambda _: Released("none"), "does not verify"),
    Pushed("a release of another instance", _released(SOMEBODY), "names no cause", event="result-dropped"),
)
"""What was in force stays so."""
