"""The sidecar's settings, and the mistakes people make in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.errors import InvalidConfiguration
from sidecar.config import SidecarConfig, load

TEXT = """\
trustDomain: example.org
authority: {url: https://127.0.0.1:8443, bundle: bundle.pem}
enrolment: {joinTokenFile: token}
workload: {pid: 4242, files: {include: [/srv/app]}}
measurer: {placement: pod}
delivery: {mode: sds, socket: run/xds.sock, allow: {uids: [1337]}}
state: state
"""


def read(folder: Path, text: str, environment: dict[str, str] | None = None) -> SidecarConfig:
    file = folder / "sidecar.yaml"
    file.write_text(text)
    return load(file, environment or {})


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT)
    assert config.workload.pid == 4242
    assert config.delivery.allow.uids == (1337,)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, TEXT, {"PROOFBEAT_AUTHORITY_URL": "https://a:1", "PROOFBEAT_WORKLOAD_PID": "7"})
    assert (config.authority.url, config.workload.pid) == ("https://a:1", 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("joinTokenFile", "joinTokenFle"), "'joinTokenFile'"),
        (("https://", "http://"), "never travel in the clear"),
        (("pid: 4242", "pid: 0"), "workload.pid"),
        (("example.org", "Example.Org"), "is not a trust domain"),
        (("state: state\n", ""), "state"),
        (("mode: sds", "mode: carrier-pigeon"), "delivery.mode"),
    ],
)
def test_each_mistake_names_its_place_and_its_mending(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        read(tmp_path, TEXT.replace(*change))
    assert words in raised.value.sentence
    assert "sidecar.yaml" in raised.value.sentence
