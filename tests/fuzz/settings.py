"""Files that people and our own programs write: policies, settings, the latch, the authority's secrets."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from attestation.errors import InvalidConfiguration
from attestation.layers import Layer
from attestation.plain import plain
from attestation.violation import Violation, ViolationClass
from authority import config as authority_config
from authority import keyring
from policies.model import load
from sidecar import config as sidecar_config
from sidecar.latch import Latch, Latched
from sidecar.states import Sticky
from tests.fuzz.target import Target, scratch
from tests.fuzz.world import INSTANCE, NOW


def _written(name: str, data: bytes) -> Path:
    path = scratch() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def _says_the_same_again(model: BaseModel) -> None:
    """What is signed and sent is the dump, so a dump must read as what was dumped."""
    dump = model.model_dump_json(by_alias=True)
    assert type(model).model_validate_json(dump).model_dump_json(by_alias=True) == dump


def policies(data: bytes) -> None:
    """Documents that load say the same to the sidecar that gets them."""
    with suppress(InvalidConfiguration):
        for governing in load.load([_written("policy.yaml", data)]).governing.values():
            for document in (governing.policy, governing.references, governing.registration):
                _says_the_same_again(document)


def sidecar_settings(data: bytes) -> None:
    """Settings load, or say where they are wrong."""
    path = _written("sidecar.yaml", data)
    for environment in ({}, {"PROOFBEAT_AUTHORITY_URL": data.decode("latin-1"), "PROOFBEAT_WORKLOAD_PID": "7"}):
        with suppress(InvalidConfiguration):
            sidecar_config.load(path, environment)


def authority_settings(data: bytes) -> None:
    """Settings load with an address to listen on, or say where they are wrong."""
    with suppress(InvalidConfiguration):
        host, port = authority_config.load(_written("authority.yaml", data)).address
        assert host
        assert 0 <= port <= 65_535


def latch_file(data: bytes) -> None:
    """A latch that opens tells every line of this instance; one that does not is never taken for empty."""
    latch = Latch(_written("latch/latch.jsonl", data).parent)
    with suppress(InvalidConfiguration):
        told = latch.open(INSTANCE)
        assert data.count(b"c-1") == 0 or told or INSTANCE.value.encode() not in data
    latch.close()


def secrets_file(data: bytes) -> None:
    """Keys that are read are of their length."""
    with suppress(InvalidConfiguration):
        ring = keyring.opened(_written("keys.json", data), now=NOW)
        assert (len(ring.nonce_key), len(ring.ticket_key)) == (32, 32)
        assert 0 <= ring.epoch < 1 << 32


_POLICIES = b"""\
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: hardened}
spec:
  mode: enforce
  interval: 10s
  freshness: 60s
  layers: {files: {demand: required, maxAge: 30s}, processes: {demand: best-effort}}
  files: {include: [/srv/app], volatile: ["*.log"]}
  rules:
    noRoot: {that: "processes.root == 0", message: nothing runs as root, class: tamper}
    layered:
      that: >-
        files.measured
        && proxy.seated
      message: all is there
      layer: files
---
apiVersion: proofbeat.dev/v1alpha1
kind: ReferenceValues
metadata: {name: web}
spec:
  files: {/srv/app/main: {digests: [sha256:%s], mode: "0644", uid: 0}}
  executables: {/bin/a: [%s]}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: spiffe://example.org/web, references: web}
""" % (b"a" * 64, b"b" * 64)

_SIDECAR = b"""\
trustDomain: example.org
authority: {url: https://127.0.0.1:8443, bundle: bundle.pem}
enrolment: {joinTokenFile: token}
workload: {pid: 4242, files: {include: [/srv/app]}}
measurer: {placement: pod}
delivery: {mode: sds, socket: run/xds.sock, allow: {uids: [1337]}}
state: state
"""

_AUTHORITY = b"""\
trustDomain: example.org
listen: 127.0.0.1:0
store: data/authority.sqlite
policies: [policies]
ca: {folder: ca, name: Town, lifetime: 1h}
admin: run/admin.sock
"""

_CAUSE = Violation("execution-foreign", ViolationClass.TAMPER, Layer.PROCESSES, "/tmp/x", "a foreign program ran", 1.5)
_LATCHED = Latched(INSTANCE, "c-1", Sticky(1, _CAUSE))
_KEYS = b'{"epoch": 1700000000, "nonce": "%s", "ticket": "%s"}' % (b"0a" * 32, b"0b" * 32)

_YAML = (b": ", b"- ", b"? ", b"&a ", b"*a", b"<<: ", b"!!int ", b"!!float ", b"!!binary ", b"!!set ", b"!!timestamp ")
_WORDS = (
    *_YAML,
    b"[" * 40,
    b"{" * 40,
    b"---\n",
    b'"\\0"',
    b'"\\ud800"',
    b"\x85",
    b".inf",
    b"0x",
    b"1:2",
    b"9" * 50,
    b"0.0001s",
)

TARGETS = (
    Target("policies", policies, lambda: (_POLICIES, _POLICIES.partition(b"---")[0]), _WORDS),
    Target("sidecar-settings", sidecar_settings, lambda: (_SIDECAR,), _WORDS),
    Target("authority-settings", authority_settings, lambda: (_AUTHORITY,), _WORDS),
    Target(
        "latch",
        latch_file,
        lambda: (b"", json.dumps(plain(_LATCHED)).encode() + b"\n"),
        (b"\n", b"null", b"[" * 40, b"1e999", b"\x85"),
    ),
    Target("keyring", secrets_file, lambda: (_KEYS,), (b"null", b"1e999", b"[" * 40, b"-1", b"{}"), most_bytes=1024),
)
