"""`proofbeat breakglass ...`: orders made, signed and verified on any machine; applied and ended at an authority.

Without a subcommand it is `request`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proofbeat.options import AdminSocket, Json, exit_with

breakglass = typer.Typer(
    help="Let traffic flow that an appraisal would close: for a while, for a reason, signed by several operators."
)

Scope = Annotated[
    list[str] | None,
    typer.Option(help="A registration (repeat it), namespace:NAME, instance:ID, or mesh for everything."),
]
For = Annotated[str | None, typer.Option("--for", help="How long: 30m, 1h.")]
Reason = Annotated[str | None, typer.Option(help="One line for everybody who sees it.")]
From = Annotated[str | None, typer.Option("--from", help="When it begins: 2026-01-31T22:00:00Z; else at once.")]
Out = Annotated[Path | None, typer.Option("-o", "--output", help="Where to write it; else stdout.", metavar="FILE")]
Admin = Annotated[Path | None, typer.Option("--admin", help="The authority's admin socket: who is registered.")]
Policies = Annotated[list[Path] | None, typer.Option(help="Documents instead of --admin; repeat it.", metavar="PATH")]
Root = Annotated[str, typer.Option("--root", help="The authority's `rootNamespace`.")]
Order = Annotated[Path, typer.Argument(help="An order, as `request` writes it.", metavar="FILE")]


@breakglass.callback(invoke_without_command=True)
def shorthand(
    context: typer.Context,
    scope: Scope = None,
    lasts: For = None,
    reason: Reason = None,
    begins: From = None,
    output: Out = None,
    admin: Admin = None,
    policies: Policies = None,
    root: Root = "proofbeat-system",
) -> None:
    """`proofbeat breakglass --scope --for --reason` is `request`."""
    if context.invoked_subcommand is not None:
        return
    if not scope and lasts is None and reason is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    request(scope, lasts, reason, begins, output, admin, policies, root)


@breakglass.command()
def request(
    scope: Scope = None,
    lasts: For = None,
    reason: Reason = None,
    begins: From = None,
    output: Out = None,
    admin: Admin = None,
    policies: Policies = None,
    root: Root = "proofbeat-system",
) -> None:
    """Write an order, which nobody has signed yet. Its scope is fixed by name and by SPIFFE ID."""
    if not scope or lasts is None or reason is None:
        raise typer.BadParameter("an order needs --scope, --for and --reason")
    if (admin is None) == (not policies):
        raise typer.BadParameter("say either --admin SOCKET or --policies PATH", param_hint="--admin")
    from attestation.quantities import instant, seconds
    from proofbeat import orders

    async def program() -> bool:
        known = await orders.known_online(admin) if admin is not None else orders.known_offline(policies or (), root)
        wish = orders.Wish(tuple(scope), seconds(lasts), reason, None if begins is None else instant(begins))
        return orders.request(wish, known, output)

    exit_with(program)


@breakglass.command()
def sign(
    key: Annotated[Path, typer.Option("--key", help="Your private key, PEM: Ed25519, or on P-256.")],
    order: Order,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether you mean it.")] = False,
) -> None:
    """Show an order, and add your signature to its file. Needs nothing but the file and the key."""
    from proofbeat import orders

    async def program() -> bool:
        return orders.sign(order, key, asked=not yes)

    exit_with(program)


@breakglass.command()
def verify(
    order: Order,
    policies: Policies = None,
    operators: Annotated[
        Path | None, typer.Option(help="Instead of policies: what their `spec.breakGlass` says, YAML.", metavar="FILE")
    ] = None,
    root: Root = "proofbeat-system",
    as_json: Json = False,
) -> None:
    """Who signed an order, and for whom it holds, without asking anybody. Exit code 1 where it does not."""
    if (operators is None) == (not policies):
        raise typer.BadParameter("say either --policies PATH or --operators FILE", param_hint="--policies")
    from proofbeat import orders

    async def program() -> bool:
        if operators is not None:
            return orders.verify_signatures(order, operators, as_json=as_json)
        return orders.verify(order, policies or (), root, as_json=as_json)

    exit_with(program)


@breakglass.command()
def apply(
    admin: AdminSocket,
    order: Order,
    as_json: Json = False,
) -> None:
    """Bring a signed order into force. Exit code 1 where it does not hold for everybody in its scope."""
    from proofbeat.operate import break_glass as run

    exit_with(lambda: run(admin, order, as_json=as_json))


@breakglass.command()
def end(
    admin: AdminSocket,
    identity: Annotated[str, typer.Argument(help="As `list` shows it.", metavar="ID")],
    reason: Annotated[str, typer.Option(help="For the record.")] = "an operator ended it",
    registration: Annotated[
        list[str] | None, typer.Option(help="End it for this one alone; repeat it.", metavar="NAME")
    ] = None,
) -> None:
    """End an order at once, and for good: for all, or for some. It takes nobody's signature."""
    from proofbeat.operate import mend_glass as run

    exit_with(lambda: run(admin, identity, reason, registration or ()))


@breakglass.command("list")
def listing(
    admin: AdminSocket,
    everything: Annotated[bool, typer.Option("--all", help="Orders that have ended as well.")] = False,
    as_json: Json = False,
) -> None:
    """The orders that stand, by whom they are signed, and until when they hold."""
    from proofbeat.operate import broken_glass as run

    exit_with(lambda: run(admin, everything=everything, as_json=as_json))


@breakglass.command()
def operator(
    name: Annotated[str, typer.Argument(help="Who it is, for readers of the policy.")],
    key: Annotated[Path, typer.Option("--key", help="The private or the public key, PEM.")],
) -> None:
    """What a policy's `spec.breakGlass.operators` says of somebody, as YAML."""
    from proofbeat import orders

    async def program() -> bool:
        return orders.operator(name, key)

    exit_with(program)
