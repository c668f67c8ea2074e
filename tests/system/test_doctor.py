"""The doctor on this machine: as whoever runs the tests, as nobody in particular, and over settings that are wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.authority.town import configured, policies, town

DOCTOR = ("-P", "-m", "proofbeat", "doctor", "--json")
ORDINARY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ROOT = Path(__file__).parents[2]
SOURCES = {**os.environ, "PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}", "HOME": "/nonexistent"}


def examined(
    *arguments: str, first: tuple[str, ...] = (), python: str = sys.executable, cwd: Path | None = None
) -> dict[str, Any]:
    """first: the command put before the interpreter, by way of a shell: it may hold rights that are dropped."""
    shell = ("sh", "-c", 'exec "$@"', "sh") if first else ()
    command = [*first, *shell, python, *DOCTOR, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env=SOURCES)
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if told["complete"] else 1)
    return told


def health(told: dict[str, Any], name: str) -> str:
    return next(str(each["health"]) for each in told["checks"] if each["name"] == name)


def test_everything_that_is_tried_here_works() -> None:
    assert examined()["works"] is True


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes root to become somebody else")
def test_an_ordinary_user_is_told_what_is_weaker_and_the_line_that_mends_it() -> None:
    python = open_to_all()
    told = examined(first=ORDINARY, python=python, cwd=Path("/"))
    assert told["works"] is True
    weaker = (
        *("fanotify", "kernel-programs", "process-connector", "sock-destroy"),
        *("ptrace-access", "read-everything", "egress-fence"),
    )
    assert {health(told, name) for name in weaker} == {"limited"}
    assert told["mechanisms"]["files"] == "inotify"
    given = next(word for word in told["mend"][0].split() if word.startswith("+"))
    granted = (*ORDINARY, "--inh-caps", given, "--ambient-caps", given)
    told = examined(first=granted, python=python, cwd=Path("/"))
    assert {health(told, name) for name in weaker} == {"ok"}
    assert told["mechanisms"]["files"] == "fanotify"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes root to become somebody else")
def test_a_user_whose_container_was_given_capabilities_is_told_that_none_of_them_counts() -> None:
    contained = ("setpriv", "--bounding-set=-all,+sys_ptrace,+net_admin", *ORDINARY[1:])
    told = examined(first=contained, python=open_to_all(), cwd=Path("/"))
    assert health(told, "effective-capabilities") == "limited"
    found = next(str(each["found"]) for each in told["checks"] if each["name"] == "effective-capabilities")
    assert found == "CAP_NET_ADMIN, CAP_SYS_PTRACE given, and not effective for user 65534"
    given = "+sys_ptrace,+net_admin"
    ambient = (*contained, "--inh-caps", given, "--ambient-caps", given)
    assert health(examined(first=ambient, python=open_to_all(), cwd=Path("/")), "effective-capabilities") == "ok"


def open_to_all() -> str:
    """An interpreter that nobody in particular may run, and that can use what is installed for ours."""
    wanted = f"import sys, aiohttp, cryptography; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for python in (str(Path(sys.executable).resolve()), "/usr/bin/python3", "/usr/local/bin/python3"):
        tried = [*ORDINARY, "sh", "-c", 'exec "$@"', "sh", python, "-c", wanted]
        if subprocess.run(tried, capture_output=True, check=False, env=SOURCES, cwd="/").returncode == 0:
            return python
    pytest.skip("no Python of this version, or this checkout, is open to everybody")


def written(file: Path, settings: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(settings))
    return file


def test_a_sidecars_settings_are_tried_against_the_authority_that_they_name(tmp_path: Path) -> None:
    async def story() -> None:
        async with town(tmp_path) as where:
            (tmp_path / "token").write_text("t")
            right: dict[str, Any] = {
                "trustDomain": "town.example",
                "authority": {"url": where.where.url, "bundle": str(tmp_path / "ca" / "root.pem")},
                "enrolment": {"joinTokenFile": str(tmp_path / "token")},
                "workload": {"pid": os.getpid()},
                "delivery": {"socket": str(tmp_path / "xds.sock")},
                "state": str(tmp_path / "state"),
            }
            names = ("workload", "delivery-socket", "state", "join-token", "authority")
            told = await _with(tmp_path, right)
            assert {health(told, name) for name in names} == {"ok"}
            (tmp_path / "empty").touch()
            for wrong, name in (
                ({"trustDomain": "other.example"}, "authority"),
                ({"authority": {**right["authority"], "url": "https://127.0.0.1:9"}}, "authority"),
                ({"authority": {**right["authority"], "bundle": str(tmp_path / "no.pem")}}, "authority"),
                ({"enrolment": {"joinTokenFile": str(tmp_path / "empty")}}, "join-token"),
                ({"workload": {"pid": 4_000_000}}, "workload"),
                ({"delivery": {"socket": str(tmp_path / ("long" * 30))}}, "delivery-socket"),
                ({"delivery": {"socket": str(where.where.admin)}}, "delivery-socket"),
                ({"state": "/proc/nowhere"}, "state"),
            ):
                told = await _with(tmp_path, {**right, **wrong})
                broken = [each["name"] for each in told["checks"] if each["health"] == "broken"]
                assert broken == [name], wrong
                assert next(each["mend"] for each in told["checks"] if each["name"] == name)

    asyncio.run(story())


def test_an_authoritys_settings_are_tried_for_port_policies_and_folders(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(policies())
    config = configured(tmp_path)
    right = {
        "trustDomain": config.trust_domain,
        "store": "authority.sqlite",
        "policies": ["policies.yaml"],
        "ca": {"folder": "ca"},
        "admin": "admin.sock",
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        told = examined("-c", str(written(tmp_path / "authority.yaml", {**right, "listen": busy})))
        assert [each["name"] for each in told["checks"] if each["health"] == "broken"] == ["listen"]
    told = examined("-c", str(written(tmp_path / "authority.yaml", {**right, "listen": "127.0.0.1:0"})))
    assert told["works"] is True
    assert health(told, "policies") == "ok"


async def _with(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    file = written(folder / "sidecar.yaml", settings)
    return await asyncio.to_thread(examined, "-c", str(file))
