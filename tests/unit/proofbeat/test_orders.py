"""`proofbeat breakglass`: an order made on one machine, signed on two others, and verified on a fourth, offline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from attestation.breakglass import Reach, Scope, Signed, to_text
from attestation.errors import InvalidInput
from proofbeat.orders import Known, read, scope_of

Run = Callable[..., tuple[int, str, str]]
WEB, DB = "spiffe://example.org/web", "spiffe://example.org/db"
KNOWN = Known("example.org", 7, {"web": WEB, "db": DB, "payments/api": "spiffe://example.org/api"}, {"i-1": WEB})
SPAN = ("--for", "30m", "--reason", "a release that nobody referenced")


def _ran(folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-P", "-m", "proofbeat", "breakglass", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(_ran, tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of ada and bob, the policy that names them, and a request by it. Nobody writes here: each has copies."""
    folder = tmp_path_factory.mktemp("operators")
    operators = []
    for name, key in (("ada", ed25519.Ed25519PrivateKey.generate()), ("bob", ec.generate_private_key(ec.SECP256R1()))):
        (folder / f"{name}.pem").write_bytes(_pem(key))
        operators.append(_ran(folder, "operator", name, "--key", f"{name}.pem")[1])
    (folder / "operators.yaml").write_text("operators:\n" + "".join(operators) + "quorum: 2\nlongest: 1h\n")
    said = "".join(f"    {line}\n" for line in (folder / "operators.yaml").read_text().splitlines())
    (folder / "policies.yaml").write_text(_DOCUMENTS + said)
    _ran(folder, "request", "--scope", "web", *SPAN, "--policies", "policies.yaml", "-o", "order.json")
    return folder


@pytest.fixture
def policies(prepared: Path, tmp_path: Path) -> str:
    for name in ("ada.pem", "bob.pem", "operators.yaml", "policies.yaml"):
        shutil.copy(prepared / name, tmp_path)
    return "policies.yaml"


@pytest.fixture
def order(prepared: Path, policies: str, tmp_path: Path) -> Path:
    """A request that nobody has signed."""
    return Path(shutil.copy(prepared / "order.json", tmp_path))


def _pem(key: Any) -> bytes:
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    content: bytes = key.private_bytes(*pem)
    return content


_DOCUMENTS = """apiVersion: proofbeat.dev/v1alpha1
kind: ReferenceValues
metadata: {name: web}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {name: web}
spec: {spiffeId: "spiffe://example.org/web", references: web}
---
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {name: hardened}
spec:
  mode: enforce
  breakGlass:
"""


def test_two_operators_sign_a_file_and_anybody_verifies_it_without_an_authority(run: Run, policies: str) -> None:
    code, _, said = run("request", "--scope", "web", *SPAN, "--policies", policies, "-o", "order.json")
    assert code == 0 and "Nobody has signed it" in said
    assert run("verify", "--policies", policies, "order.json")[0] == 1
    assert run("sign", "--yes", "--key", "ada.pem", "order.json")[0] == 0
    code, told, _ = run("verify", "--policies", policies, "order.json")
    assert code == 1 and "2 operators must sign, and did: ada" in told
    code, _, said = run("sign", "--yes", "--key", "bob.pem", "order.json")
    assert code == 0 and WEB in said
    code, told, _ = run("verify", "--policies", policies, "--json", "order.json")
    document = json.loads(told)
    assert code == 0
    assert document["holds"] and document["standing"] == "in force" and document["scope"]["identities"] == [WEB]
    assert document["for"]["web"]["signed_by"] == ["ada", "bob"]
    assert run("verify", "--operators", "operators.yaml", "order.json")[0] == 0


def test_the_short_spelling_makes_the_request(run: Run, policies: str) -> None:
    code, told, _ = run("--scope", "web", *SPAN, "--policies", policies)
    assert code == 0 and json.loads(told)["signatures"] == []


def test_an_order_that_is_over_does_not_verify(run: Run, policies: str, order: Path) -> None:
    asked = read(order).order
    past = {name: getattr(asked, name) - 3600 for name in ("issued_at", "not_before", "not_after")}
    order.write_text(to_text(Signed(replace(asked, **past))))
    for name in ("ada", "bob"):
        run("sign", "--yes", "--key", f"{name}.pem", "order.json")
    code, told, _ = run("verify", "--policies", policies, "order.json")
    assert code == 1 and "over" in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("request", "--scope", "web"), "an order needs --scope, --for and --reason"),
        (("request", "--scope", "web", *SPAN), "say either --admin SOCKET or --policies PATH"),
        (("request", "--scope", "wed", *SPAN, "--policies", "policies.yaml"), "no registration 'wed' is ruled"),
        (("request", "--scope", "*", *SPAN, "--policies", "policies.yaml"), "no registration '*' is ruled"),
        (("--scope", "web", "--for", "1 hour", "--reason", "x", "--policies", "policies.yaml"), "not a duration"),
        (("--scope", "web", "--for", "1h", "--reason", " ", "--policies", "policies.yaml"), "without a reason"),
        (
            ("--scope", "web", *SPAN, "--from", "2019-01-01T00:00:00Z", "--policies", "policies.yaml"),
            "before it was made",
        ),
        (("--scope", "web", *SPAN, "--from", "2099-01-01T00:00:00Z", "--policies", "policies.yaml"), "more than 24 h"),
        (("verify", "--policies", "policies.yaml", "policies.yaml"), "break-glass order: it does not parse"),
        (("verify", "--policies", "policies.yaml", "nowhere.json"), "cannot be read"),
        (("sign", "--yes", "--key", "ada.pem", "ada.pem"), "break-glass order: it does not parse"),
        (("sign", "--key", "ada.pem", "order.json"), "nobody is there to ask"),
        (("sign", "--yes", "--key", "policies.yaml", "order.json"), "no key on P-256 or Ed25519"),
        (("operator", "ada lovelace", "--key", "ada.pem"), "should match pattern"),
        ((), "--scope"),
    ],
)
@pytest.mark.usefixtures("order")
def test_a_mistake_is_told_in_one_line(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    code, told, said = run(*arguments)
    assert code == 2 and complaint in told + said


def test_a_request_overwrites_nothing(run: Run, policies: str) -> None:
    again = ("request", "--scope", "web", *SPAN, "--policies", policies, "-o", policies)
    code, _, said = run(*again)
    assert code == 2 and "File exists" in said


@pytest.mark.usefixtures("order")
def test_a_key_on_another_curve_is_refused_before_it_signs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p384.pem").write_bytes(_pem(ec.generate_private_key(ec.SECP384R1())))
    code, _, said = run("sign", "--yes", "--key", "p384.pem", "order.json")
    assert code == 2 and "neither on P-256 nor Ed25519" in said


@pytest.mark.parametrize(
    ("asked", "scope"),
    [
        (("web", "db", "web"), Scope(Reach.REGISTRATIONS, ("db", "web"), (DB, WEB))),
        (("namespace:default",), Scope(Reach.NAMESPACE, ("default",), (DB, WEB))),
        (("namespace:payments",), Scope(Reach.NAMESPACE, ("payments",), ("spiffe://example.org/api",))),
        (("instance:i-1",), Scope(Reach.INSTANCE, ("i-1",), (WEB,))),
        (("mesh",), Scope(Reach.MESH)),
    ],
)
def test_a_scope_is_fixed_by_the_identities_of_the_moment(asked: tuple[str, ...], scope: Scope) -> None:
    assert scope_of(asked, KNOWN) == scope


@pytest.mark.parametrize(
    "asked", [("mesh", "web"), ("namespace:nobody",), ("instance:i-2",), ("namespace:default", "web"), ("api",), ("",)]
)
def test_nobody_is_in_a_scope_that_is_not_exact(asked: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        scope_of(asked, KNOWN)
