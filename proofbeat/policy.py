"""`proofbeat policy ...`: documents checked, explained, tried and compared before an authority reads them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from proofbeat.options import AdminSocket, Json, exit_with

policy = typer.Typer(help="Policy documents.", no_args_is_help=True)

Paths = Annotated[list[Path], typer.Argument(help="Files, or folders of *.yaml, as the authority's `policies`.")]
Trusted = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key",
        help="As the authority's `references.trustedKeys`: a public key, PEM, that may have signed; repeat it.",
        metavar="FILE",
    ),
]
Root = Annotated[str, typer.Option("--root", help="The authority's `rootNamespace`.")]


class Mode(StrEnum):
    """policies.model.policy.Mode, without importing it."""

    OBSERVE = "observe"
    AUDIT = "audit"
    ENFORCE = "enforce"


@policy.command("check")
def policy_check(
    paths: Paths,
    root: Root = "proofbeat-system",
    trust_domain: Annotated[str | None, typer.Option(help="The authority's `trustDomain`; any is taken else.")] = None,
    trusted: Trusted = None,
    failover: Annotated[str, typer.Option(help="How long the authority may be away, and no lease end.")] = "15s",
    skew: Annotated[str, typer.Option(help="What any two clocks may differ by.")] = "5s",
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings as well.")] = False,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0 there.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Every fault and every doubt about policy documents, each with file, line and column."""
    import time

    from attestation.quantities import seconds
    from attestation.spiffe import SpiffeId
    from policies.author.check import Terms
    from policies.model.signing import demanded
    from proofbeat.authoring.check import run

    async def program() -> bool:
        if trust_domain is not None:
            SpiffeId(trust_domain)
        terms = Terms(root, seconds(failover), seconds(skew), time.time(), trust_domain, demanded(trusted or ()))
        return await run(paths, terms, strict=strict, as_json=as_json, sarif_file=sarif)

    exit_with(program)


@policy.command("explain")
def policy_explain(
    name: Annotated[str, typer.Argument(help="A registration or a SPIFFE ID; with --admin also an instance.")],
    admin: Annotated[Path | None, typer.Option("--admin", help="The admin socket of a running authority.")] = None,
    policies: Annotated[list[Path] | None, typer.Option(help="Documents instead; repeat it.", metavar="PATH")] = None,
    root: Root = "proofbeat-system",
    as_json: Json = False,
) -> None:
    """Each value that rules a workload, the line it comes from, and whose values it prevailed over."""
    if (admin is None) == (not policies):
        raise typer.BadParameter("say either --admin SOCKET or --policies PATH", param_hint="--admin")
    from proofbeat.authoring.explain import offline, online

    if admin is not None:
        exit_with(lambda: online(admin, name, as_json=as_json))
    exit_with(lambda: offline(policies or (), root, name, as_json=as_json))


@policy.command("test")
def policy_test(
    path: Annotated[Path, typer.Argument(help="A file of cases, or a folder with such files in and below it.")],
    trusted: Trusted = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit's XML there.", metavar="FILE")] = None,
    as_json: Json = False,
) -> None:
    """Cases: claims or facts, and the verdict and reasons that policies must come to. docs/policies.md has the form."""
    from proofbeat.authoring.cases import run

    exit_with(lambda: run(path, trusted or (), as_json=as_json, junit_file=junit))


@policy.command("diff")
def policy_diff(
    before: Annotated[Path, typer.Argument(help="A file, or a folder of *.yaml: the policies that are in force.")],
    after: Annotated[Path, typer.Argument(help="The same, as it is to be.")],
    evidence: Annotated[Path, typer.Option(help="What `proofbeat evidence save` wrote.", metavar="DIR")],
    root: Root = "proofbeat-system",
    trusted: Trusted = None,
    as_json: Json = False,
) -> None:
    """Whose verdict would change by saved evidence, and who would close. Exit code 1 when somebody would."""
    from proofbeat.authoring.diff import run

    exit_with(lambda: run(before, after, evidence, root, trusted or (), as_json=as_json))


@policy.command("learn")
def policy_learn(
    name: Annotated[str, typer.Argument(help="What policy and reference values are to be called.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(help="What to start and to watch from the first instruction on.", metavar="-- CMD"),
    ] = None,
    pid: Annotated[
        list[int] | None, typer.Option(help="Instead: the first process of a workload that runs; repeat it.")
    ] = None,
    cgroup: Annotated[str, typer.Option(help="With one --pid: its cgroup; whoever is in that belongs to it.")] = "",
    include: Annotated[list[Path] | None, typer.Option(help="Path whose files are measured; repeat it.")] = None,
    volatile: Annotated[list[str] | None, typer.Option(help="Glob pattern of what of it nobody judges.")] = None,
    seconds_for: Annotated[
        str | None, typer.Option("--for", help="How long it is watched; 60s if nobody says.")
    ] = None,
    until_converged: Annotated[
        bool, typer.Option("--until-converged", help="Instead: until nothing new comes any more.")
    ] = False,
    at_most: Annotated[str, typer.Option(help="With --until-converged: exit code 1 where it takes longer.")] = "10m",
    merge: Annotated[
        list[Path] | None, typer.Option(help="A folder that was written before; repeat it.", metavar="DIR")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The folder to write; else NAME.")] = None,
    mode: Annotated[Mode, typer.Option(help="Of the policy.")] = Mode.OBSERVE,
    spiffe_id: Annotated[str, typer.Option(help="Write a registration with it, too.")] = "",
    listener: Annotated[
        Path | None, typer.Option(help="The seccomp profile asks a measurer at this socket, instead of refusing.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch a workload under load, and write what it may do: policy, reference values, seccomp profile."""
    from attestation.quantities import seconds
    from policies.model import policy as model
    from proofbeat.learning.run import run
    from proofbeat.learning.wishes import Place, Until, Wishes

    if seconds_for is not None and until_converged:
        raise typer.BadParameter("say either --for or --until-converged", param_hint="--for")

    async def program() -> bool:
        most = seconds(at_most) if until_converged else seconds(seconds_for or "60s")
        place = Place(output or Path(name), model.Mode(mode), spiffe_id, str(listener or ""), as_json)
        wished = Wishes(
            name=name,
            until=Until(most, until_converged),
            place=place,
            pids=tuple(pid or ()),
            command=tuple(command or ()),
            cwd=Path.cwd(),
            cgroup=cgroup,
            include=tuple(include or ()),
            volatile=tuple(volatile or ()),
            merge=tuple(merge or ()),
        )
        return await run(wished)

    exit_with(program)


@policy.command("reload")
def policy_reload(
    admin: AdminSocket,
    strict: Annotated[bool, typer.Option("--strict", help="Change nothing where any document is at fault.")] = False,
) -> None:
    """Have a running authority read its policies again. Exit code 1 where a document is at fault.

    Whom it concerns gets no identity until it is mended. Where that is everybody, nothing changes.
    """
    from proofbeat.operate import reload as run

    exit_with(lambda: run(admin, strict=strict))


@policy.command("schema")
def policy_schema(
    kind: Annotated[str, typer.Argument(help="AttestationPolicy, ReferenceValues, WorkloadRegistration, PolicyTest.")],
) -> None:
    """A kind of document as JSON Schema."""
    from proofbeat.authoring.schema import run

    exit_with(lambda: run(kind))


@policy.command("preset")
def policy_preset(
    name: Annotated[str | None, typer.Argument(help="Print this one, to be put beside your own policies.")] = None,
    as_json: Json = False,
) -> None:
    """Policies that come with Proofbeat, each value with its reason: what there is, or one of them."""
    from proofbeat.authoring.preset import run

    exit_with(lambda: run(name, as_json=as_json))
