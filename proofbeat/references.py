"""`proofbeat references ...`: built from what runs or from what is shipped, merged for a roll-out, signed, verified."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from proofbeat.options import Json, exit_with

references = typer.Typer(help="Reference values.", no_args_is_help=True)

Output = Annotated[Path | None, typer.Option("-o", "--output", help="Where to write it; else stdout.", metavar="FILE")]


class Kind(StrEnum):
    """What a source is; policies.author.references.sources.Source, without importing it."""

    DIR = "dir"
    TAR = "tar"
    OCI = "oci"
    DOCKER = "docker"
    DEB = "deb"
    CYCLONEDX = "cyclonedx"
    SPDX = "spdx"
    KEYLIME = "keylime"


@references.command("build")
def references_build(
    name: Annotated[str, typer.Argument(help="What they are to be called.")],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="A folder, archive, image, .deb files, SBOM, or Keylime policy.", metavar="SOURCE"),
    ] = None,
    pid: Annotated[int | None, typer.Option(help="Instead: a workload's first process, as it should be.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Absolute path whose files are stated; repeat it.")] = None,
    volatile: Annotated[list[str] | None, typer.Option(help="Glob pattern of what is left out.")] = None,
    projected: Annotated[
        list[str] | None, typer.Option(help="With --pid: glob pattern of volumes that are swapped by `..data`.")
    ] = None,
    mapped: Annotated[
        bool, typer.Option("--mapped", help="With --pid: state what its processes have mapped as code as well.")
    ] = False,
    executable: Annotated[
        list[str] | None, typer.Option(help="Path or pattern of what may be executed, besides what an image starts.")
    ] = None,
    at: Annotated[str, typer.Option(help="Where the workload has what is in the source.")] = "/",
    kind: Annotated[Kind | None, typer.Option("--from", help="What the source is, where it cannot be told.")] = None,
    platform: Annotated[str, typer.Option(help="Of an image for several: linux/arm64.")] = "",
    ref: Annotated[str, typer.Option(help="Of several images the one that is tagged so.")] = "",
    packages: Annotated[
        Path | None, typer.Option(help="A Debian repository's `Packages`: each .deb must be listed there.")
    ] = None,
    check_dpkg: Annotated[
        Path | None, typer.Option(help="A Debian root: say which of the files are as dpkg knows them.", metavar="ROOT")
    ] = None,
    signed_by: Annotated[
        Path | None, typer.Option(help="The key that must have signed a Keylime policy, PEM.", metavar="KEY")
    ] = None,
    owners: Annotated[bool, typer.Option("--owners", help="State uid and gid of files as well.")] = False,
    namespace: Annotated[str, typer.Option(help="Of the document.")] = "default",
    inherits: Annotated[
        str | None, typer.Option(help="ReferenceValues that they are based on: only what differs is written.")
    ] = None,
    policies: Annotated[
        list[Path] | None, typer.Option(help="With --inherits: documents that are based on; repeat it.", metavar="PATH")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When: 30d from now, or 2026-12-31T00:00:00Z.")] = None,
    version: Annotated[str | None, typer.Option(help="Label of this version of the software: 1.5.")] = None,
    also: Annotated[Path | None, typer.Option(help="Reference values of other versions, good as well.")] = None,
    envoy: Annotated[Path | None, typer.Option("--envoy", help="The program of its Envoy.")] = None,
    most_bytes: Annotated[int | None, typer.Option(help="Unpacked, at most; else 16 GiB.", min=1)] = None,
    output: Output = None,
    as_json: Annotated[bool, typer.Option("--json", help="With -o: what was done, as one JSON object.")] = False,
) -> None:
    """Reference values, as YAML: of a running workload, or of what is shipped, which is read and never unpacked."""
    if (pid is None) == (not sources):
        raise typer.BadParameter("say either what to build from, or --pid", param_hint="SOURCE")
    if pid is not None and not include:
        raise typer.BadParameter("--pid takes --include: what of it is measured", param_hint="--include")
    if projected and pid is None:
        raise typer.BadParameter("what is shipped holds no such volume; it goes with --pid", param_hint="--projected")
    if mapped and pid is None:
        raise typer.BadParameter("what is shipped is mapped by nobody; it goes with --pid", param_hint="--mapped")
    if (inherits is None) != (not policies):
        raise typer.BadParameter("--inherits and --policies go together", param_hint="--inherits")
    if as_json and output is None:
        raise typer.BadParameter("--json goes to stdout, so the document needs a place: -o FILE", param_hint="--json")
    from proofbeat.authoring.references import Asked, Place, build

    asked = Asked(
        name=name,
        namespace=namespace,
        sources=tuple(sources or ()),
        pid=pid,
        include=tuple(include or ()),
        volatile=tuple(volatile or ()),
        projected=tuple(projected or ()),
        mapped=mapped,
        executables=tuple(executable or ()),
        at=at,
        kind=kind.value if kind else "",
        platform=platform,
        ref=ref,
        packages=packages,
        check_dpkg=check_dpkg,
        signed_by=signed_by,
        owners=owners,
        inherits=inherits,
        policies=tuple(policies or ()),
        expires=expires,
        version=version,
        also=also,
        envoy=envoy,
        most_bytes=most_bytes,
    )
    exit_with(lambda: build(asked, Place(output, as_json=as_json)))


@references.command("merge")
def references_merge(
    files: Annotated[list[Path], typer.Argument(help="Reference values of several versions of one workload.")],
    drop: Annotated[list[str] | None, typer.Option(help="A version that is good no longer; repeat it.")] = None,
    output: Output = None,
) -> None:
    """One document for a roll-out, in which each version is good as a whole; or, when it is over, for what is left."""
    from proofbeat.authoring.references import merge

    exit_with(lambda: merge(files, drop or (), output))


@references.command("sign")
def references_sign(
    files: Annotated[list[Path], typer.Argument(help="Files with reference values.")],
    key: Annotated[Path, typer.Option("--key", help="Your private key, PEM: on P-256, or Ed25519.")],
) -> None:
    """Sign files as they are. FILE.jws, beside each, is what an authority with `references.trustedKeys` asks for."""
    from proofbeat.authoring.references import sign

    exit_with(lambda: sign(files, key))


@references.command("verify")
def references_verify(
    files: Annotated[list[Path], typer.Argument(help="Files with reference values.")],
    key: Annotated[list[Path], typer.Option("--key", help="A public key that is trusted, PEM; repeat it.")],
    as_json: Json = False,
) -> None:
    """Whether a trusted key has signed each file as it is. Exit code 1 where that is not so."""
    from proofbeat.authoring.references import verify

    exit_with(lambda: verify(files, key, as_json=as_json))
