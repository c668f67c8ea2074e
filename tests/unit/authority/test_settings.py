"""Settings, secrets and caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.claims import Claims, LayerClaim
from attestation.coverage import Coverage
from attestation.errors import InvalidConfiguration
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.signals import Signal
from attestation.spiffe import SpiffeId
from attestation.trust import TrustVector
from attestation.violation import ViolationClass
from authority import config, keyring
from authority.rules import Ruling
from authority.verifier.cache import Appraisals, Bodies, Clean, appraisal_key
from policies.appraise.reasons import Finding, Verdict
from policies.model.governing import Governing
from policies.model.inheritance import effective
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration

GOOD = """
trustDomain: example.org
listen: 127.0.0.1:0
store: data/authority.sqlite
policies: [policies]
ca: {folder: ca, name: Town, lifetime: 1h}
admin: run/admin.sock
"""


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "authority.yaml").write_text(GOOD)
    read = config.load(tmp_path / "authority.yaml")
    assert read.store == tmp_path / "data/authority.sqlite"
    assert read.policies == (tmp_path / "policies",)
    assert read.ca.folder == tmp_path / "ca"
    assert read.admin == tmp_path / "run/admin.sock"
    assert read.ca.lifetime == 3600.0
    assert read.address == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("admin:", "admn:"), "Did you mean 'admin'"),
        (("folder:", "foldr:"), "Did you mean 'folder'"),
        (("example.org", "Example.org"), "not a trust domain"),
        (("127.0.0.1:0", "8443"), "listen"),
        (("[policies]", "[]"), "policies"),
        (("1h", "3600"), "duration"),
        (("store: data/authority.sqlite\n", ""), "store"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_cure(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "authority.yaml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(InvalidConfiguration) as error:
        config.load(path)
    assert said in error.value.sentence
    assert str(path) in error.value.where


def test_secrets_outlive_a_restart_and_are_private(tmp_path: Path) -> None:
    path = tmp_path / "run" / "authority.keys"
    made = keyring.opened(path, now=1_000.0)
    assert keyring.opened(path, now=2_000.0) == made
    assert made.epoch == 1_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyring.opened(tmp_path / "another.keys", now=1_000.0).nonce_key != made.nonce_key


def test_secrets_that_others_can_read_or_that_are_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "authority.keys"
    keyring.opened(path, now=1.0)
    path.chmod(0o644)
    with pytest.raises(InvalidConfiguration, match="others can read"):
        keyring.opened(path, now=1.0)
    path.chmod(0o600)
    for text in ("", "{}", '{"epoch": 1, "nonce": "00", "ticket": "00"}'):
        path.write_text(text)
        with pytest.raises(InvalidConfiguration):
            keyring.opened(path, now=1.0)


def test_a_ticket_depends_on_every_part_and_on_where_parts_end(tmp_path: Path) -> None:
    ring = keyring.opened(tmp_path / "authority.keys", now=1.0)
    made = {ring.ticket(*parts) for parts in ((b"a", b"bc"), (b"ab", b"c"), (b"abc",), (b"a", b"bc", b""))}
    assert len(made) == 4


def test_bodies_are_bounded_and_the_least_recently_used_go_first() -> None:
    bodies = Bodies(most_bytes=30)
    for name in ("a", "b", "c"):
        bodies.put("web", name, bytes(10))
    assert bodies.get("web", "a") is not None
    bodies.put("web", "d", bytes(10))
    assert bodies.get("web", "b") is None
    assert bodies.get("web", "a") is not None
    bodies.put("web", "huge", bytes(31))
    assert bodies.get("web", "huge") is None
    assert bodies.get("web", "a") is not None


def test_nobody_sees_the_bodies_of_another_scope() -> None:
    bodies = Bodies()
    bodies.put("web", "a", b"secret")
    assert bodies.get("api", "a") is None


def test_appraisals_are_bounded() -> None:
    appraisals = Appraisals(most=2)
    for number in range(3):
        appraisals.put(number, Verdict(TrustVector(), ()))
    assert appraisals.get(0) is None
    assert appraisals.get(2) is not None
    assert (appraisals.hits, appraisals.misses) == (1, 1)


def ruling(digest: str = "a" * 64) -> Ruling:
    named = Metadata(name="web")
    spec = RegistrationSpec(spiffe_id="spiffe://example.org/web", references="web")
    governing = Governing(
        WorkloadRegistration(metadata=named, spec=spec),
        AttestationPolicy(metadata=named),
        effective(ReferenceValues(metadata=named)),
    )
    return Ruling("web", SpiffeId("example.org", "/web"), governing, digest, "")


def claims(
    *, digest: str = "b" * 64, age_ms: int = 5, full_age_ms: int = 5, sequence: int = 1, served: int | None = None
) -> Claims:
    layer = LayerClaim(Layer.FILES, digest, Method.FULL, age_ms, full_age_ms, 1)
    return Claims(InstanceId("i-" + "0" * 32), sequence, 0, 1, 0, b"", "", (layer,), Coverage(), served)


def test_an_appraisal_is_reused_while_nothing_it_depends_on_changes() -> None:
    known = appraisal_key(claims(), ruling())
    assert appraisal_key(claims(sequence=2, age_ms=40_000, full_age_ms=50_000), ruling()) == known
    assert appraisal_key(claims(digest="c" * 64), ruling()) != known
    assert appraisal_key(claims(), ruling("d" * 64)) != known


def test_an_appraisal_is_reused_whichever_of_its_certificates_an_instance_serves_and_for_no_other() -> None:
    known = appraisal_key(claims(), ruling())
    assert appraisal_key(claims(served=7), ruling(), {7}) == known
    assert appraisal_key(claims(served=8), ruling(), {8}) == known
    foreign = appraisal_key(claims(served=8), ruling())
    assert foreign != known
    assert appraisal_key(claims(served=9), ruling()) != foreign


def test_an_appraisal_is_made_anew_when_an_age_passes_its_bound() -> None:
    known = appraisal_key(claims(), ruling())
    assert appraisal_key(claims(age_ms=60_001, full_age_ms=60_001), ruling()) != known
    assert appraisal_key(claims(full_age_ms=3_600_001), ruling()) != known


def verdict(*layers: Layer) -> Verdict:
    """One that says something of these layers."""
    found = (Finding(Signal.FILE_MODIFIED, ViolationClass.DRIFT, layer, "a", "b", "c", "d") for layer in layers)
    return Verdict(TrustVector(), tuple(found))


def learnt(clean: Clean, under: Ruling) -> bytes | None:
    files = clean.of(under)
    return files.body if files is not None else None


def test_what_the_next_files_are_compared_with_is_the_latest_in_which_nothing_was_found_under_the_same_rules() -> None:
    clean, bodies = Clean(), {"b" * 64: b"first", "c" * 64: b"second"}
    clean.learn(claims(digest="b" * 64), bodies, ruling(), verdict(Layer.PROCESSES))
    assert learnt(clean, ruling()) == b"first"
    clean.learn(claims(digest="c" * 64), bodies, ruling(), verdict(Layer.FILES))
    assert learnt(clean, ruling()) == b"first"
    clean.learn(claims(digest="c" * 64), bodies, ruling(), verdict())
    assert learnt(clean, ruling()) == b"second"
    clean.learn(claims(digest="d" * 64), bodies, ruling(), verdict())
    assert learnt(clean, ruling()) == b"second"
    assert learnt(clean, ruling("d" * 64)) is None


def test_what_files_are_compared_with_is_bounded_and_the_least_recently_used_goes_first() -> None:
    clean, bodies = Clean(most_bytes=20), {"b" * 64: bytes(10)}
    for digest in ("1" * 64, "2" * 64):
        clean.learn(claims(), bodies, ruling(digest), verdict())
    clean.of(ruling("1" * 64))
    clean.learn(claims(), bodies, ruling("3" * 64), verdict())
    clean.learn(claims(), bodies, ruling("3" * 64), verdict())
    assert [learnt(clean, ruling(digest)) is None for digest in ("1" * 64, "2" * 64, "3" * 64)] == [False, True, False]
