"""Reference values at a real authority: built of what is shipped, signed, of several versions, until they expire."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from attestation import manifest
from attestation.channel import Observed, Scope
from attestation.errors import InvalidConfiguration
from attestation.layers import Layer
from attestation.manifest import FILE, Entry
from attestation.quantities import instant_text
from attestation.trust import Tier
from policies.model.signing import beside, sign
from tests.system.authority.town import MAIN, PYTHON, RUNTIME, TRUST_DOMAIN, Town, attester, measured, refusal, town
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import ROOT, Sidecar
from tests.unit.policies.references.packing import Layout, Put, packed

ONE, TWO = "a1" * 32, "b2" * 32
LATER = "2099-12-31T00:00:00Z"


RULES = f"""\
apiVersion: proofbeat.dev/v1alpha1
kind: AttestationPolicy
metadata: {{name: hardened}}
spec: {{mode: enforce, interval: 10s, freshness: 60s, files: {{include: [/srv/app]}}}}
---
apiVersion: proofbeat.dev/v1alpha1
kind: WorkloadRegistration
metadata: {{name: web}}
spec: {{spiffeId: spiffe://{TRUST_DOMAIN}/web, references: web}}
"""


async def judged(where: Town, layers: dict[Layer, bytes], number: int = 1) -> tuple[Tier, list[str]]:
    """What comes of an instance with these layers, and why."""
    async with attester(where, number) as one:
        one.layers = layers
        result = one.result(await one.round())
        return result.status, [reason.partition(":")[0] for reason in result.reasons]


# --- built of an image ---

BINARY = Path("/bin/sleep").resolve()


def needed(program: Path) -> set[Path]:
    """Its loader and libraries (ldd(1))."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {Path(word) for word in said.split() if word.startswith("/")}


def layers() -> tuple[bytes, bytes]:
    """A base with one program and something else, and an application on it that takes the something away."""
    files = [Put(str(path)[1:], path.read_bytes(), mode=0o755) for path in sorted({BINARY, *needed(BINARY)})]
    base = packed(*files, Put("srv/app/sample.conf", b"an example"), Put("srv/app/static/logo", b"1", mode=0o600))
    app = packed(
        Put("srv/app/main.conf", b"what is served"),
        Put("srv/app/current", link="main.conf"),
        Put("srv/app/.wh.sample.conf", b""),
        Put("srv/app/static/logo", b"2"),
    )
    return base, app


def unpacked(root: Path, archives: tuple[bytes, ...]) -> None:
    """By GNU tar, as a runtime would: what is under whiteouts goes, and the rest is laid over it."""
    for archive in archives:
        listed = subprocess.run(["tar", "-t"], input=archive, capture_output=True, check=True).stdout.decode().split()
        for name in (Path(each) for each in listed):
            if name.name.startswith(".wh."):
                (root / name).with_name(name.name.removeprefix(".wh.")).unlink()
        subprocess.run(["tar", "-x", "-p", "--no-same-owner", "--exclude=.wh.*", "-C", root], input=archive, check=True)


def references(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "proofbeat", "references", *arguments]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A folder with an image, and with the root that it becomes."""
    base, app = layers()
    config = {"Entrypoint": ["sleep"], "Cmd": ["600"], "Env": [f"PATH={BINARY.parent}"]}
    Layout().add(base, app, config=config).written(tmp_path / "image")
    (tmp_path / "base.tgz").write_bytes(gzip.compress(base))
    (tmp_path / "root").mkdir()
    unpacked(tmp_path / "root", (base, app))
    (tmp_path / "policies").mkdir()
    return tmp_path


@needs_root
def test_an_instance_of_an_image_is_affirmed_by_what_was_built_of_the_image(shipped: Path) -> None:
    references(shipped, "build", "base", "base.tgz", "--namespace", "proofbeat-system", "-o", "policies/base.yaml")
    based = ("--inherits", "proofbeat-system/base", "--policies", "policies")
    references(shipped, "build", "web", "image", *based, "-o", "policies/web.yaml")
    built = [each.read_text() for each in (shipped / "policies").iterdir()]
    app = shipped / "root/srv/app"

    async def story(look: Callable[[], dict[Layer, bytes]]) -> None:
        async with town(shipped, rules="---\n".join([RULES, *built])) as where:
            assert await judged(where, look()) == (Tier.AFFIRMING, [])
            (app / "sample.conf").write_text("an example")
            assert await judged(where, look(), 2) == (Tier.CONTRAINDICATED, ["file-unreferenced"])
            (app / "sample.conf").unlink()
            (app / "static/logo").write_bytes(b"1")
            assert await judged(where, look(), 3) == (Tier.CONTRAINDICATED, ["file-modified"])

    with running(shipped / "root") as pid, Sidecar(Scope(pid, ("/srv/app",), ())) as sidecar:
        sidecar.settle()
        asyncio.run(story(lambda: looked(sidecar)))


@contextlib.contextmanager
def running(root: Path) -> Iterator[int]:
    """An instance of the image, as a process."""
    with subprocess.Popen(["chroot", root, str(BINARY), "600"], start_new_session=True) as process:
        try:
            while Path(f"/proc/{process.pid}/root").readlink() != root:
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def looked(sidecar: Sidecar) -> dict[Layer, bytes]:
    """Both layers as the measurer has them now."""
    sidecar.files(full=True)
    found = [(told.observation.layer, body) for told, body in sidecar.inbox if isinstance(told, Observed)]
    return {layer: body for layer, body in found if body is not None}


# --- signed ---


def stated(*digests: str, **more: str) -> str:
    """Reference values for what `town.measured` shows. more: of the spec, as YAML."""
    spec = {
        "files": f"{{{MAIN}: {{digests: [{', '.join(digests)}]}}}}",
        "executables": f"{{{PYTHON}: [{RUNTIME}]}}",
        **more,
    }
    lines = "".join(f"  {name}: {value}\n" for name, value in spec.items())
    return f"apiVersion: proofbeat.dev/v1alpha1\nkind: ReferenceValues\nmetadata: {{name: web}}\nspec:\n{lines}"


def test_reference_values_that_nobody_signed_do_not_come_into_force(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "release.pub").write_bytes(key.public_key().public_bytes(*form))
    file, good = tmp_path / "policies.yaml", f"{RULES}---\n{stated(ONE, expires=LATER)}"
    beside(file).write_text(sign(good.encode(), key))

    async def story() -> None:
        async with town(tmp_path, rules=good, trusted=tmp_path / "release.pub") as where:
            assert await judged(where, measured(ONE)) == (Tier.AFFIRMING, [])
            evil = f"{RULES}---\n{stated(ONE, TWO, expires=LATER)}"
            file.write_text(evil)
            with pytest.raises(InvalidConfiguration, match=r"policies\.yaml:\d+:1: .* that no trusted key"):
                await where.authority.reload_policies(strict=True)
            assert (await judged(where, measured(TWO), 2))[0] is Tier.CONTRAINDICATED
            assert await where.authority.reload_policies() == 2
            assert (await refusal(where.authority.create_token("web"))).kind == "registration-unruled"
            beside(file).write_text(sign(evil.encode(), key))
            assert await where.authority.reload_policies() == 3
            assert await judged(where, measured(TWO), 3) == (Tier.AFFIRMING, [])

    asyncio.run(story())


def test_at_its_start_an_authority_gives_nobody_an_identity_by_what_nobody_signed(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "release.pub").write_bytes(key.public_bytes(*form))

    async def story() -> None:
        async with town(tmp_path, rules=f"{RULES}---\n{stated(ONE)}", trusted=tmp_path / "release.pub") as where:
            assert (await refusal(where.authority.create_token("web"))).kind == "registration-unruled"
            (fault,) = where.authority.faults().faults
            assert "policies.yaml.jws cannot be read" in fault.what and fault.without_identity == ("web",)

    asyncio.run(story())


# --- of several versions ---


def test_in_a_roll_out_each_version_is_affirmed_and_no_mixture(tmp_path: Path) -> None:
    other = "/srv/app/page"
    versions = "".join(
        f"\n    {label!r}: {{files: {{{MAIN}: {{digests: [{digest}]}}, {other}: {{digests: [{digest}]}}}}}}"
        for label, digest in (("1.4", ONE), ("1.5", TWO))
    )

    def files(main: str, page: str) -> dict[Layer, bytes]:
        entries = [Entry(path, FILE, 0o644, 0, 0, 1, digest) for path, digest in ((MAIN, main), (other, page))]
        return {**measured(), Layer.FILES: manifest.pack(entries)}

    async def story() -> None:
        async with town(tmp_path, rules=f"{RULES}---\n{stated(ONE, files='{}', versions=versions)}") as where:
            assert await judged(where, files(ONE, ONE)) == (Tier.AFFIRMING, [])
            assert await judged(where, files(TWO, TWO), 2) == (Tier.AFFIRMING, [])
            assert await judged(where, files(ONE, TWO), 3) == (Tier.CONTRAINDICATED, ["file-versions-mixed"])

    asyncio.run(story())


# --- until they expire ---


def test_leases_end_with_the_reference_values_and_then_nothing_is_affirmed(tmp_path: Path) -> None:
    ends = int(time.time()) + 3600
    expires = f'"{instant_text(ends)}"'

    async def story() -> None:
        async with town(tmp_path, rules=f"{RULES}---\n{stated(ONE, expires=expires)}") as where, attester(where) as one:
            one.layers = measured(ONE)
            assert (await one.round()).lease_ms == 60_000
            where.clock.ahead = ends - time.time() - 20
            one.nonce = await one.client.challenge()
            near = await one.round()
            assert near.issued_ms + near.lease_ms == ends * 1000
            assert near.chain
            where.clock.ahead = ends - time.time() + 1
            one.nonce = await one.client.challenge()
            over = await one.round()
            assert over.chain == ""
            assert (await where.authority.why(str(one.instance))).answer is not None

    asyncio.run(story())
