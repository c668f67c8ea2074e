"""Which Envoy a sidecar runs, and how it is kept from giving its memory out."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from attestation.errors import InvalidConfiguration
from proofbeat.envoy import binary, execute_only, without_capabilities
from sidecar.ownenvoy import Launch
from sidecar.service import ServiceSettings

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


def envoy(service: ServiceSettings | None, named: Path | None) -> Launch:
    """named: on the command line; else the settings' own, else the one that is found.

    It runs from an execute-only copy beside its bootstrap, unless it is execute-only already. Raises Unavailable where
    there is none, InvalidConfiguration where it cannot be run or nobody described what it is to be delivered.
    """
    if service is None:
        raise InvalidConfiguration(
            "an Envoy is run only where it is delivered everything",
            where="delivery.mode",
            mend="Set mode xds and describe its service, or start Envoy yourself, without --run-envoy.",
        )
    wanted = named or service.envoy or binary()
    if not os.access(wanted, os.X_OK) or wanted.is_dir():
        raise InvalidConfiguration(
            "this is no program that we may run", where=str(wanted), mend="Name an Envoy in delivery.service.envoy."
        )
    folder = service.bootstrap.absolute().parent
    if not folder.is_dir():
        raise InvalidConfiguration(
            "the folder for Envoy's bootstrap, and for a copy of it that nobody can read, is not there",
            where=str(folder),
            mend=f"Make it: mkdir -p -m 700 {shlex.quote(str(folder))}. Or name another by delivery.service.bootstrap.",
        )
    try:
        readable = wanted.stat().st_mode & _READABLE
        program = execute_only(wanted, folder) if readable else wanted
    except OSError as error:
        raise InvalidConfiguration(
            f"Envoy cannot be copied there: {error.strerror}",
            where=str(folder),
            mend="Make room, or install it execute-only (mode 0111) and name it in delivery.service.envoy.",
        ) from error
    return Launch(program.absolute(), without_capabilities)
