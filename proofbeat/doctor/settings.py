"""A program's settings, tried against this machine: what would keep it from starting, before it is started."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp

from attestation.errors import InvalidConfiguration, ProofbeatError
from authority import config as authority_config
from authority.config import AuthorityConfig
from policies.model import dialect
from policies.model.load import load as load_policies
from proofbeat.doctor.findings import LEAST_FREE, Check, Health
from proofbeat.doctor.probe import nearest
from sidecar import config as sidecar_config
from sidecar.config import SidecarConfig
from wire import tls

_SECONDS = 5.0
MOST_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""


async def checks(path: Path) -> tuple[Check, ...]:
    """Of a sidecar's or an authority's settings. Raises InvalidConfiguration for a file that is neither."""
    documents = list(dialect.parse(dialect.read_text(path), str(path)))
    keys = documents[0][0] if documents and isinstance(documents[0][0], dict) else {}
    if "policies" in keys:
        return authority_checks(authority_config.load(path))
    return await sidecar_checks(sidecar_config.load(path))


async def sidecar_checks(config: SidecarConfig) -> tuple[Check, ...]:
    return (
        _tried("workload", lambda: _process(config.workload.pid), "Name the pid of a running workload."),
        _socket("delivery-socket", config.delivery.socket),
        _folder("state", config.state),
        _token(config),
        await _authority(config),
    )


def authority_checks(config: AuthorityConfig) -> tuple[Check, ...]:
    return (
        _tried("policies", lambda: _policies(config), "`proofbeat policy check` says the same."),
        _folder("store", config.store.parent),
        _folder("ca", config.ca.folder),
        _socket("admin-socket", config.admin),
        _tried("listen", lambda: _free(config), "End the other program, or name another port in `listen`."),
    )


def _tried(name: str, what: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, Health.OK, what())
    except ProofbeatError as error:
        return _broken(name, error.sentence, mend)
    except OSError as error:
        return _broken(name, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror), mend)


def _broken(name: str, found: str, *mend: str) -> Check:
    return Check(name, Health.BROKEN, found, "the program does not start, or never opens", mend)


def _process(pid: int) -> str:
    os.close(os.pidfd_open(pid))
    return f"process {pid} runs"


def _socket(name: str, path: Path) -> Check:
    if len(os.fsencode(path.absolute())) > MOST_SOCKET_PATH:
        return _broken(name, f"{path}: longer than {MOST_SOCKET_PATH} bytes", "Name a shorter path.")
    above = nearest(path.parent)
    if not os.access(above, os.W_OK | os.X_OK):
        return _broken(name, f"{above} cannot be written", f"chown {os.geteuid()} {above}, or name another folder.")
    if path.is_socket() and _answers(path):
        return _broken(name, f"{path}: somebody listens there", "End the other program, or name another path.")
    return Check(name, Health.OK, str(path))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)


def _folder(name: str, folder: Path) -> Check:
    above = nearest(folder)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        mend = f"install -d -o {os.geteuid()} -m 700 {folder}"
        return _broken(name, f"{above} cannot be written", mend)
    free = shutil.disk_usage(above).free
    if free < LEAST_FREE:
        return _broken(name, f"{folder}: {free >> 20} MiB free", f"Make room: {LEAST_FREE >> 20} MiB at least.")
    return Check(name, Health.OK, f"{folder}, {free >> 20} MiB free")


def _token(config: SidecarConfig) -> Check:
    ticket, file = config.state / "ticket", config.enrolment.join_token_file
    if os.access(ticket, os.R_OK) and ticket.stat().st_size:
        return Check("join-token", Health.OK, f"a ticket of an earlier run is in {ticket}")
    mend = f"proofbeat token create --admin ADMIN_SOCKET REGISTRATION > {file}"

    def read() -> str:
        if not file.read_text().strip():
            raise InvalidConfiguration("the file is empty", where=str(file))
        return str(file)

    return _tried("join-token", read, mend)


async def _authority(config: SidecarConfig) -> Check:
    """Reached, and really the authority: the handshake itself demands its reserved ID."""
    name, url = "authority", config.authority.url
    try:
        context = tls.client_context(config.authority.bundle.read_text(), config.trust_domain)
        connector, timeout = aiohttp.TCPConnector(ssl=context), aiohttp.ClientTimeout(total=_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            http.get(f"{url}/v1/bundle", allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                return _broken(name, f"{url} answers {answer.status}", "Is it a Proofbeat authority?")
    except ProofbeatError as error:
        return _broken(name, error.sentence, "Copy root.pem from the authority's `ca` folder.")
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLError) as error:
        mend = "Take `bundle` and `trustDomain` from this authority, or name the right one in `url`."
        return _broken(name, f"{url} is somebody else: {error}", mend)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError) and error.filename:
            mend = "Copy root.pem from the authority's `ca` folder there."
            return _broken(name, f"{error.filename}: {error.strerror}", mend)
        return _broken(name, f"{url}: {str(error) or 'no answer in time'}", "Start it: proofbeat authority -c FILE")
    return Check(name, Health.OK, f"{url} is spiffe://{config.trust_domain}/proofbeat/authority")


def _policies(config: AuthorityConfig) -> str:
    found = load_policies(config.policies, config.root_namespace, trust_domain=config.trust_domain).governing
    return f"{len(found)} registrations: {', '.join(sorted(found)[:5])}" if found else "no registrations yet"


def _free(config: AuthorityConfig) -> str:
    host, port = config.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    return f"{config.listen} is free"
