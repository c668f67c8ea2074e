"""What an operator does to a running authority, and to documents before it reads them. Each answers yes or no."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from attestation import breakglass
from attestation.plain import plain
from attestation.quantities import instant_text
from authority.api.answers import (
    DenialList,
    GlassBroken,
    GlassMended,
    GlassOrders,
    Instances,
    LatestCalls,
    OrderState,
    PolicyFaults,
    Reloaded,
)
from authority.store.records import Held, InstanceState, State
from proofbeat import admin, orders
from wire.messages import Released, Standing


async def status(socket: Path, *, everybody: bool, as_json: bool) -> bool:
    """True when every instance that is not gone is fresh, and no policy document is at fault.

    everybody: list those that are gone as well.
    """
    known = (await admin.ask(socket, "GET", "/admin/instances", Instances)).instances
    here = [each for each in known if not each.gone]
    listed = known if everybody else here
    denials = await admin.ask(socket, "GET", "/admin/denials", DenialList)
    glass = await admin.ask(socket, "GET", "/admin/breakglass", GlassOrders)
    broken = [each for each in glass.orders if each.standing == "in force"]
    wrong = await admin.ask(socket, "GET", "/admin/faults", PolicyFaults)
    if as_json:
        found = {"instances": plain(listed), "denials": plain(denials), "breakglass": plain(broken)}
        found["policies"] = plain(wrong)
        latest = await admin.ask(socket, "GET", "/admin/calls", LatestCalls)
        shown = {each.instance for each in listed}
        found["calls"] = plain(tuple(each for each in latest.calls if each.instance in shown))
        print(json.dumps(found, indent=1))
    else:
        _print_instances(listed, time.time() * 1000)
        if len(listed) < len(known):
            print(f"and {len(known) - len(listed)} that are gone (--all)")
        if denials.denied:
            print(refused(denials, here))
        for each in broken:
            print(f"GLASS IS BROKEN: {told(each)}")
        _print_faults(wrong)
    return not wrong.faults and all(each.state is State.FRESH for each in here)


async def token(socket: Path, registration: str, lifetime: str) -> bool:
    print(await admin.create_token(socket, registration, lifetime))
    return True


async def quarantine(socket: Path, instance: str, reason: str) -> bool:
    await admin.ask(socket, "POST", "/admin/quarantine", Standing, {"instance": instance, "cause": reason})
    print(f"{instance} is quarantined")
    return True


async def release(socket: Path, instance: str) -> bool:
    await admin.ask(socket, "POST", "/admin/release", Released, {"instance": instance})
    print(f"{instance} is released; it opens after its next full measurement")
    return True


async def break_glass(socket: Path, file: Path, *, as_json: bool) -> bool:
    """True where the order holds for everybody in its scope."""
    text = breakglass.to_text(orders.read(file))
    broken = await admin.ask(socket, "POST", "/admin/breakglass", GlassBroken, {"order": text})
    if as_json:
        print(json.dumps(plain(broken), indent=1))
    else:
        print(broken.order)
        for each in broken.held:
            signed_by = ", ".join(each.signed_by) or "nobody"
            print(f"  {each.registration}: {'; '.join(each.faults) or f'in force, signed by {signed_by}'}")
    return not any(each.faults for each in broken.held)


async def mend_glass(socket: Path, identity: str, why: str, registrations: Sequence[str]) -> bool:
    """registrations: for these alone; none of them for all."""
    asked = {"id": identity, "why": why, "registrations": list(registrations)}
    await admin.ask(socket, "POST", "/admin/breakglass/end", GlassMended, asked)
    whose = f" for {', '.join(registrations)}" if registrations else ""
    print(f"{identity} has ended{whose}; what it let through closes")
    return True


async def broken_glass(socket: Path, *, everything: bool, as_json: bool) -> bool:
    """everything: those that have ended as well."""
    every = (await admin.ask(socket, "GET", "/admin/breakglass", GlassOrders)).orders
    listed = [each for each in every if everything or each.standing in ("waiting", "in force")]
    if as_json:
        print(json.dumps({"orders": plain(listed)}, indent=1))
    else:
        for each in listed:
            print(told(each))
        if not listed:
            print("no glass is broken")
    return True


def told(order: OrderState) -> str:
    """An order on one line."""
    span = f"{instant_text(order.begins)} to {instant_text(order.ends)}"
    ended = f" ({order.ended})" if order.ended else ""
    lost = "".join(f"; no longer for {each.registration}: {each.why}" for each in order.withdrawn)
    for_whom = f"{order.scope} ({', '.join(order.registrations)}{lost})"
    signed_by = ", ".join(order.signed_by)
    return f"{order.id}  {order.standing}{ended}, {span}, for {for_whom}, signed by {signed_by}: {order.reason}"


async def reload(socket: Path, *, strict: bool) -> bool:
    """True when no document is at fault. strict: take nothing else."""
    path = "/admin/policies?strict" if strict else "/admin/policies"
    reloaded = await admin.ask(socket, "POST", path, Reloaded)
    print(f"policy epoch {reloaded.epoch} is in force")
    _print_faults(reloaded.wrong)
    return not reloaded.wrong.faults


def _print_faults(wrong: PolicyFaults) -> None:
    for each in wrong.faults:
        mend = f". {each.mend}" if each.mend else ""
        names = ", ".join(each.without_identity)
        print(f"POLICY FAULT: {each.where}: {each.document}: {each.what}{mend}")
        print(f"  without identity until it is mended: {names or 'nobody'}")
    if wrong.left_out:
        print(f"and {wrong.left_out} faults more (`proofbeat policy check`)")


def refused(denials: DenialList, here: Sequence[InstanceState]) -> str:
    """Whom peers refuse, and at how many of those that are open it is in force. here: instances that are not gone."""
    names = ", ".join(str(each.instance) for each in denials.denied)
    fresh = [each for each in here if each.state is State.FRESH]
    reached = sum(each.revocation >= denials.version for each in fresh)
    in_force = f"list {denials.version}, acknowledged by the Envoys of {reached} of {len(fresh)} fresh ones"
    return f"Peers refuse {names} ({in_force})."


def _print_instances(found: Sequence[InstanceState], now_ms: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("instance", "SPIFFE ID", "state", "lease left", "why not"):
        table.add_column(column, overflow="fold", no_wrap=column == "state")
    for each in found:
        left = max(0.0, (each.lease_end_ms - now_ms) / 1000)
        state = called(each.state, each.held)
        table.add_row(
            str(each.instance),
            each.spiffe_id,
            f"{state}, gone" if each.gone else state,
            f"{left:.0f} s",
            _why_not(each),
        )
    # A pipe has no width of its own; identifiers cut in two are no use to anybody.
    Console(highlight=False, width=None if sys.stdout.isatty() else 250).print(table)


def called(state: str, held: Held | None) -> str:
    """An instance's state. What is held is as open as what has warnings, and says for what, and who is closed."""
    return f"warning ({held or 'held'})" if state == State.HELD else state


def _why_not(state: InstanceState) -> str:
    if state.state is State.FRESH:
        return ""
    return "; ".join(tuple(cause.text for cause in state.causes) or state.reasons)
