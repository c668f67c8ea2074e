"""The command line. Imports are lazy: `--help` costs nobody an event loop, a database or an Envoy."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from proofbeat.breakglass import breakglass
from proofbeat.detector import detector
from proofbeat.evidence import evidence
from proofbeat.forensics import forensics
from proofbeat.options import AdminSocket, ConfigFile, Json, exit_with
from proofbeat.policy import policy
from proofbeat.references import references

app = typer.Typer(
    name="proofbeat",
    help="Mesh identity that exists only while attestation of its workload is fresh.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
token = typer.Typer(help="Join tokens.", no_args_is_help=True)
app.add_typer(token, name="token")
app.add_typer(references, name="references")
app.add_typer(policy, name="policy")
app.add_typer(breakglass, name="breakglass")
app.add_typer(evidence, name="evidence")
app.add_typer(forensics, name="forensics")
app.add_typer(detector, name="detector")


class Delivery(StrEnum):
    """The sidecar's `delivery.mode`."""

    SDS = "sds"
    XDS = "xds"


def main() -> None:
    """The console script."""
    app()


@app.command()
def demo(
    as_json: Json = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it all running until Ctrl-C.")] = False,
    delivery: Annotated[
        Delivery | None, typer.Option(help="What Envoy is delivered: secrets and filters, or everything.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Run under it: a preset (`proofbeat policy preset`), or a file of policies.")
    ] = None,
) -> None:
    """The whole thing on this machine, with real Envoys: half a minute."""
    from proofbeat.demo import floor
    from proofbeat.demo.play import play

    async def program() -> bool:
        return await play(as_json=as_json, keep=keep, terms=floor.terms(policy, delivery.value if delivery else None))

    exit_with(program)


@app.command(context_settings={"allow_interspersed_args": False})
def up(
    command: Annotated[list[str], typer.Argument(help="Your own program, after `--`.", metavar="-- CMD")],
    include: Annotated[
        list[Path] | None, typer.Option(help="Folder or file to measure; repeat it. Else where CMD points, or here.")
    ] = None,
    volatile: Annotated[list[str] | None, typer.Option(help="Glob pattern whose content nobody judges.")] = None,
    learn: Annotated[str, typer.Option(help="How long it is watched before its policy is enforced.")] = "3s",
    learned: Annotated[
        Path | None, typer.Option(help="Instead: under what `policy learn` wrote there, calls and memory with it.")
    ] = None,
    notified: Annotated[
        bool, typer.Option("--notified", help="With --learned: under a seccomp filter that asks for what was not.")
    ] = False,
    wait: Annotated[str, typer.Option(help="How long it may take until it listens.")] = "30s",
    port: Annotated[
        int | None, typer.Option(help="Its TCP port, where it listens on several.", min=1, max=65535)
    ] = None,
    listen: Annotated[str | None, typer.Option(help="Where it is called through the mesh: 127.0.0.1:7000.")] = None,
    tcp: Annotated[bool, typer.Option("--tcp", help="It does not speak HTTP/1.1.")] = False,
    attempt: Annotated[bool, typer.Option("--try", help="Close and open it once, then end.")] = False,
    acts: Annotated[
        bool, typer.Option("--acts", help="With --try: an intruder in it calls, opens a ring, patches code, connects.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --try: one JSON object on stdout.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep settings, policy and logs of the run.")] = False,
) -> None:
    """Your own program in a mesh of one: attested, closed when it changes, opened when that is put right."""
    from attestation.quantities import seconds
    from proofbeat.learning.written import read
    from proofbeat.up.program import Program
    from proofbeat.up.run import up as run
    from proofbeat.up.wishes import Wishes

    async def program() -> bool:
        return await run(
            Wishes(
                program=Program(command, Path.cwd(), seconds(wait), port),
                include=tuple(include or ()),
                volatile=tuple(volatile or ()),
                learning=seconds(learn),
                learned=None if learned is None else read(learned),
                notified=notified,
                calls=listen,
                protocol="tcp" if tcp else "http",
                attempt=attempt,
                acts=acts,
                as_json=as_json,
                keep=keep,
            )
        )

    exit_with(program)


@app.command()
def authority(config: ConfigFile) -> None:
    """Appraises evidence and issues leases."""
    from authority import config as settings
    from authority.app import Authority, Listening
    from proofbeat import process
    from telemetry import logs
    from telemetry.names import Event

    logs.configure("authority")
    log = logs.logger()

    async def program() -> None:
        await Authority(settings.load(config)).run(_listening)

    def _listening(where: Listening) -> None:
        log.info(Event.LISTENING, url=where.url, admin=str(where.admin))

    sys.exit(process.run(program))


@app.command()
def sidecar(
    config: ConfigFile,
    run_envoy: Annotated[
        bool, typer.Option("--run-envoy", help="Run Envoy as well, and again when it ends: for `delivery.mode: xds`.")
    ] = False,
    listener: Annotated[
        list[int] | None, typer.Option(help="Descriptor of a seccomp listener of the workload's; repeat it.", min=3)
    ] = None,
    envoy: Annotated[
        Path | None, typer.Argument(help="With --run-envoy: which one; else delivery.service.envoy, or what is found.")
    ] = None,
) -> None:
    """Attests one workload and serves its identity to Envoy. Starts its measurer itself."""
    from measurer.seccomp.listener import is_listener
    from sidecar.measurement import spawn

    if envoy is not None and not run_envoy:
        raise typer.BadParameter(f"{envoy} is not run: say --run-envoy as well, or leave it out.", param_hint="ENVOY")
    for each in listener or ():
        if not is_listener(each):
            raise typer.BadParameter(f"descriptor {each} is no seccomp listener", param_hint="--listener")
    # First of all: it gets ready on another core while this process still imports.
    spawned = spawn()
    from proofbeat import launching, process
    from sidecar import config as settings
    from sidecar.app import Sidecar
    from telemetry import logs

    logs.configure("sidecar")

    async def program() -> None:
        process.harden()
        wanted = settings.load(config)
        launch = launching.envoy(wanted.delivery.service, envoy) if run_envoy else None
        await Sidecar(wanted, logs.logger(), spawned, launch, listener or ()).run(lambda: None)

    sys.exit(process.run(program))


@app.command()
def measurer(
    listen: Annotated[Path, typer.Option("--listen", help="Unix socket for the node's sidecars, mode 0600.")],
    group: Annotated[str | None, typer.Option(help="Whose members may connect as well (mode 0660).")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="UID[:pod|any|/cgroup]: whose sidecars, for what. Repeat it; else our own user's, for pods."),
    ] = None,
    seccomp: Annotated[
        Path | None, typer.Option(help="Where runtimes hand over seccomp listeners: a profile's `listenerPath`.")
    ] = None,
) -> None:
    """One measurer for all workloads of a node, for sidecars with `measurer: {placement: node}`."""
    import os

    given = [f"--allow={each}" for each in allow or ()] + ([f"--group={group}"] if group is not None else [])
    given += [f"--seccomp={seccomp}"] if seccomp is not None else []
    # In a process that has imported nothing else: it is privileged, and small.
    command = [sys.executable, "-P", "-m", "measurer", "--listen", str(listen.absolute()), *given]
    os.execv(sys.executable, command)  # noqa: S606 - an argument list, and no shell is wanted


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Option("-c", "--config", help="Settings to try as well, YAML.")] = None,
    as_json: Json = False,
) -> None:
    """What this machine, kernel and user permit, what the rest costs, and what mends it."""
    from proofbeat.doctor.run import run

    exit_with(lambda: run(config, as_json=as_json))


@app.command()
def status(
    admin: AdminSocket,
    everybody: Annotated[bool, typer.Option("--all", help="Instances that are gone as well.")] = False,
    as_json: Json = False,
) -> None:
    """Who is fresh, and why not."""
    from proofbeat.operate import status as run

    exit_with(lambda: run(admin, everybody=everybody, as_json=as_json))


@app.command()
def why(
    admin: AdminSocket,
    instance: Annotated[
        str, typer.Argument(help="Its id or the beginning of it, a registration, a SPIFFE ID, or a cause (c-...).")
    ],
    at: Annotated[str | None, typer.Option("--at", help="As it was then: 2026-01-31T12:00:00Z, or -5m.")] = None,
    as_json: Json = False,
) -> None:
    """What closed an instance, which line forbids it, what would allow it and what repairs it."""
    from proofbeat.why import run

    exit_with(lambda: run(admin, instance, at, as_json=as_json))


@app.command()
def quarantine(
    admin: AdminSocket,
    instance: Annotated[str, typer.Argument(help="As `proofbeat status` shows it.")],
    reason: Annotated[str, typer.Option("--reason", help="For the record, and for whoever asks why.")],
) -> None:
    """Take an instance's identity away, until it is released or replaced."""
    from proofbeat.operate import quarantine as run

    exit_with(lambda: run(admin, instance, reason))


@app.command()
def release(admin: AdminSocket, instance: str) -> None:
    """End an instance's quarantine, for the causes known now."""
    from proofbeat.operate import release as run

    exit_with(lambda: run(admin, instance))


@token.command("create")
def token_create(
    admin: AdminSocket,
    registration: Annotated[str, typer.Argument(help="Name of a WorkloadRegistration.")],
    lifetime: Annotated[str, typer.Option(help="How long it may be used, once: 10m, 1h.")] = "1h",
) -> None:
    """A token that enrols one instance of a registration."""
    from proofbeat.operate import token as run

    exit_with(lambda: run(admin, registration, lifetime))


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="round, violation, cut, deadman, xds-push and others; `list` names all.")],
    as_json: Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="Under 30 seconds, fewer samples.")] = False,
    seed: Annotated[int | None, typer.Option(help="faults: the same seed gives the same faults.")] = None,
    count: Annotated[int | None, typer.Option(help="faults: how many.", min=1)] = None,
    only: Annotated[list[int] | None, typer.Option(help="faults: this one of the list; repeat it.", min=1)] = None,
) -> None:
    """One benchmark, with its budgets."""
    from proofbeat.bench.run import run

    options = {"seed": seed, "count": count, "only": tuple(only or ()) or None}
    exit_with(lambda: run(name, as_json=as_json, quick=quick, options=options))
