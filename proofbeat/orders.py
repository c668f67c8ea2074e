"""Break-glass orders as files: written, shown, signed and verified without an authority. Each answers yes or no."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attestation import breakglass, keys
from attestation.breakglass import Order, Reach, Scope, Signed
from attestation.errors import InvalidInput, MalformedResult
from attestation.plain import plain
from attestation.quantities import instant_text
from attestation.spiffe import SpiffeId
from authority.api.answers import GlassOrders, Instances
from policies.appraise.breakglass import Held, held_by_each, permitted
from policies.model import dialect
from policies.model.breakglass import BreakGlassRules, Operator
from policies.model.load import load
from proofbeat import admin, keyfiles

_NAMESPACE, _INSTANCE, _MESH = "namespace:", "instance:", "mesh"
_WHERE = "--scope"
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Wish:
    """scope: as typed. lasts: seconds. begins: Unix seconds, None for at once."""

    scope: tuple[str, ...]
    lasts: float
    reason: str
    begins: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """Who is registered. registrations, instances: name -> SPIFFE ID. epoch: of the policies, 0 where nobody says."""

    trust_domain: str
    epoch: int
    registrations: Mapping[str, str]
    instances: Mapping[str, str]


async def known_online(socket: Path) -> Known:
    """As an authority has it in force."""
    told = await admin.ask(socket, "GET", "/admin/breakglass", GlassOrders)
    found = await admin.ask(socket, "GET", "/admin/instances", Instances)
    here = {each.instance.value: each.spiffe_id for each in found.instances if not each.gone}
    return Known(told.trust_domain, told.epoch, {each.name: each.spiffe_id for each in told.registrations}, here)


def known_offline(paths: Sequence[Path], root: str) -> Known:
    """As documents say. Raises InvalidConfiguration; InvalidInput where they are of several trust domains."""
    registrations = {name: each.registration.spec.spiffe_id for name, each in load(paths, root).governing.items()}
    domains = {SpiffeId.parse(each).trust_domain for each in registrations.values()}
    if len(domains) != 1:
        raise InvalidInput(
            f"{len(domains)} trust domains are registered, where an order is for one",
            where=", ".join(map(str, paths)),
            mend="Name the documents of one mesh.",
        )
    return Known(domains.pop(), 0, registrations, {})


def request(wish: Wish, known: Known, output: Path | None) -> bool:
    """Raises InvalidInput for what can be no order."""
    now = int(time.time())
    begins = now if wish.begins is None else wish.begins
    order = Order(
        trust_domain=known.trust_domain,
        scope=scope_of(wish.scope, known),
        issued_at=now,
        not_before=begins,
        not_after=begins + int(wish.lasts),
        reason=wish.reason,
        least_epoch=known.epoch,
        salt=secrets.token_hex(_SALT_BYTES),
    )
    breakglass.check(order)
    text = breakglass.to_text(Signed(order))
    if output is None:
        print(text, end="")
    else:
        _write(output, text, fresh=True)
    print(f"{order}\nNobody has signed it: `proofbeat breakglass sign --key KEY FILE`, each operator.", file=sys.stderr)
    return True


def scope_of(asked: Sequence[str], known: Known) -> Scope:
    """What is named, with the SPIFFE IDs that it has now. Raises InvalidInput for anybody who is not there."""
    if _MESH in asked or any(each.startswith((_NAMESPACE, _INSTANCE)) for each in asked):
        if len(asked) > 1:
            raise InvalidInput("several scopes", where=_WHERE, mend="Only registrations can be named together.")
        return _single(asked[0], known)
    missing = sorted(set(asked) - known.registrations.keys())
    if missing:
        listed = ", ".join(sorted(known.registrations)) or "none"
        raise InvalidInput(f"no registration {missing[0]!r} is ruled", where=_WHERE, mend=f"There are: {listed}.")
    identities = _ordered(known.registrations[each] for each in asked)
    return Scope(Reach.REGISTRATIONS, _ordered(asked), identities)


def _single(asked: str, known: Known) -> Scope:
    if asked == _MESH:
        return Scope(Reach.MESH)
    kind, _, name = asked.partition(":")
    if asked.startswith(_NAMESPACE):
        found = [identity for each, identity in known.registrations.items() if _namespace(each) == name]
        reach = Reach.NAMESPACE
    else:
        found = [known.instances[name]] if known.instances.get(name) else []
        reach = Reach.INSTANCE
    if not found:
        mend = "Instances are known to an authority only: --admin." if reach is Reach.INSTANCE else ""
        raise InvalidInput(f"nobody is registered in the {kind} {name!r}", where=_WHERE, mend=mend)
    return Scope(reach, (name,), _ordered(found))


def _namespace(qualified: str) -> str:
    namespace, separator, _ = qualified.partition("/")
    return namespace if separator else "default"


def _ordered(found: Iterable[str]) -> tuple[str, ...]:
    """Each once: an order has one spelling."""
    return tuple(sorted(set(found)))


def sign(path: Path, key_file: Path, *, asked: bool) -> bool:
    """Adds a signature to the file. asked: whether whoever signs has to say yes first."""
    signed, key = read(path), keyfiles.private(key_file)
    print(f"{signed.order}\n{_scope_in_full(signed.order)}", file=sys.stderr)
    if asked and not _agreed():
        return False
    _write(path, breakglass.to_text(signed.with_signature(key)), fresh=False)
    print(f"signed with the key {keys.thumbprint(key.public_key())[:16]}", file=sys.stderr)
    return True


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise InvalidInput("nobody is there to ask", where="sign", mend="Say --yes if you have read the order.")
    return input("Sign it? [y/N] ").strip().lower() in ("y", "yes")


def verify(path: Path, paths: Sequence[Path], root: str, *, as_json: bool) -> bool:
    """True where it holds for everybody in its scope, and is not over. Raises InvalidInput."""
    signed, governing = read(path), load(paths, root).governing
    trust_domain = known_offline(paths, root).trust_domain
    found = held_by_each(signed, governing, trust_domain, signed.order.least_epoch)
    return _tell(signed, found, as_json=as_json)


def verify_signatures(path: Path, operators: Path, *, as_json: bool) -> bool:
    """As `verify`, by nothing but the operators' keys: whom it is for is as the order says itself."""
    signed = read(path)
    rules = dialect.read(operators, BreakGlassRules)
    return _tell(signed, {str(signed.order.scope): permitted(signed, rules)}, as_json=as_json)


def _tell(signed: Signed, found: Mapping[str, Held], *, as_json: bool) -> bool:
    order, standing = signed.order, signed.order.standing(time.time())
    holds = bool(found) and all(found.values()) and standing != "over"
    if as_json:
        print(json.dumps({**document(order), "standing": standing, "holds": holds, "for": plain_held(found)}, indent=1))
        return holds
    print(f"{order}\n{_scope_in_full(order)}\n{standing}")
    for name, each in found.items():
        by = ", ".join(each.signed_by) or "nobody"
        print(f"  {name}: {'holds' if each else 'does not hold'}, signed by {by}")
        for fault in each.faults:
            print(f"    {fault}")
    if not found:
        print("  nobody here is in its scope")
    return holds


def document(order: Order) -> dict[str, Any]:
    """An order for programs; its keys are a contract (docs/break-glass.md)."""
    return {
        "id": order.id,
        "trust_domain": order.trust_domain,
        "scope": plain(order.scope),
        "from": instant_text(order.not_before),
        "until": instant_text(order.not_after),
        "reason": order.reason,
        "waives": order.waives.value,
        "least_epoch": order.least_epoch,
    }


def plain_held(found: Mapping[str, Held]) -> dict[str, Any]:
    return {name: {"holds": bool(each), **plain(each)} for name, each in found.items()}


def operator(name: str, key_file: Path) -> bool:
    """Raises InvalidConfiguration for what is no key or no name."""
    try:
        who = Operator(name=name, key=base64.b64encode(keys.public_der(keyfiles.public(key_file))).decode())
    except ValidationError as error:
        raise InvalidInput(
            str(error.errors()[0]["msg"]), where=name, mend="Letters, digits and . @ _ + - do."
        ) from error
    print(f'- {{name: "{who.name}", key: "{who.key}"}}')
    print(f"kid of this key in orders: {keys.thumbprint(who.verifying)}", file=sys.stderr)
    return True


def read(path: Path) -> Signed:
    """Raises InvalidConfiguration, MalformedResult."""
    try:
        return breakglass.from_text(dialect.read_text(path))
    except MalformedResult as error:
        raise MalformedResult(f"{error.where}: {error.what}", where=str(path), mend=error.mend) from error


def _scope_in_full(order: Order) -> str:
    identities = ", ".join(order.scope.identities) or "EVERY workload of the mesh"
    return f"trust domain {order.trust_domain}: {identities}; waives {order.waives}"


def _write(path: Path, text: str, *, fresh: bool) -> None:
    """Whole or not at all. fresh: nothing may be there yet."""
    try:
        if fresh:
            with path.open("x") as file:
                file.write(text)
            return
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        raise InvalidInput(f"it cannot be written: {error.strerror}", where=str(path)) from error
