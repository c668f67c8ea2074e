"""The files layer, held against one in which nothing was found: sooner done, and the same outcome."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import assume, given
from hypothesis import strategies as st

from attestation import manifest
from attestation.manifest import DIRECTORY, FILE, LINK, OTHER, Entry
from policies.appraise.appraise import appraise
from policies.appraise.files import Files, check_files
from policies.model.inheritance import effective
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import EffectiveReferences, FileReference, ReferenceSpec, ReferenceValues
from tests.unit.policies.test_classes import FIRST, OLD, PROJECTED, SECOND, STATED, state, volume
from tests.unit.policies.test_versions import OF_1_4, OF_1_5
from tests.unit.policies.test_versions import values as versions
from tests.unit.policies.world import BAD, GOOD, MAIN, PAGE, POLICY, REFERENCES, claimed, entry, governing

PATHS = [f"/srv/app/{name}" for name in ("a", "b", "c/d", "c/e.log", "cache/f", "volume/..data", "volume/g")] + [
    "/etc/x"
]
DIGESTS = st.sampled_from(["a" * 64, "b" * 64])
ENTRIES = st.builds(
    Entry,
    path=st.sampled_from(PATHS),
    kind=st.sampled_from((FILE, LINK, DIRECTORY, OTHER)),
    mode=st.sampled_from((0o644, 0o755)),
    uid=st.sampled_from((0, 1)),
    gid=st.just(0),
    size=st.sampled_from((1, 2)),
    digest=DIGESTS,
)
MANIFESTS = st.lists(ENTRIES, unique_by=lambda each: each.path, max_size=len(PATHS)).map(manifest.pack)
FILES = st.fixed_dictionaries(
    {"include": st.just(["/srv/app"])},
    optional={
        "volatile": st.just(["/srv/app/cache/**"]),
        "logs": st.just(["*.log"]),
        "configuration": st.just(["/srv/app/b"]),
        "projected": st.just(["/srv/app/volume/**"]),
    },
)
REFERENCE = st.builds(
    FileReference,
    digests=st.lists(DIGESTS, min_size=1, max_size=2, unique=True).map(tuple),
    mode=st.sampled_from([None, "0644"]),
    uid=st.sampled_from([None, 0]),
    optional=st.booleans(),
)


def ruled(files: object) -> AttestationPolicy:
    return AttestationPolicy(metadata=Metadata(name="p"), spec=PolicySpec.model_validate({"files": files}))


def stated(files: dict[str, FileReference]) -> EffectiveReferences:
    return effective(ReferenceValues(metadata=Metadata(name="r"), spec=ReferenceSpec(files=files)))


def agreeing(references: EffectiveReferences) -> bytes:
    """What is there when all is as it is referenced."""
    return manifest.pack(
        Entry(path, FILE, each.mode if each.mode is not None else 0o600, each.uid or 0, 0, 1, each.digests[0])
        for path, each in references.spec.files.items()
    )


@given(FILES, st.dictionaries(st.sampled_from(PATHS), REFERENCE), MANIFESTS, MANIFESTS, st.booleans())
def test_what_is_found_does_not_depend_on_what_was_clean_before(
    files: object, references: dict[str, FileReference], clean: bytes, body: bytes, agrees: bool
) -> None:
    policy, known = ruled(files), stated(references)
    clean = agreeing(known) if agrees else clean
    assume(not check_files(Files(clean), policy, known))
    compared, alone = Files(body, Files(clean)), Files(body)
    assert check_files(compared, policy, known) == check_files(alone, policy, known)
    assert compared.tally == alone.tally


def kinds(
    clean: Sequence[Entry],
    now: Sequence[Entry],
    policy: AttestationPolicy = POLICY,
    references: ReferenceValues = REFERENCES,
) -> list[str]:
    known = effective(references)
    before, after = manifest.pack(clean), manifest.pack(now)
    assert check_files(Files(before), policy, known) == []
    found = check_files(Files(after, Files(before)), policy, known)
    assert found == check_files(Files(after), policy, known)
    return [each.kind for each in found]


def test_every_way_to_deviate_is_found_beside_a_clean_one() -> None:
    clean = [entry(MAIN), entry(PAGE)]
    for now, kind in (
        ([entry(MAIN, BAD), entry(PAGE)], "file-modified"),
        ([entry(MAIN)], "file-missing"),
        ([entry(MAIN), entry(PAGE), entry("/srv/app/new", BAD)], "file-unreferenced"),
        ([entry(MAIN), entry(PAGE, mode=0o777)], "file-attributes"),
        ([entry(MAIN), entry(PAGE, kind=OTHER)], "file-unreadable"),
        ([entry(MAIN), entry(PAGE, kind=DIRECTORY)], "file-missing"),
    ):
        assert kinds(clean, now) == [kind]
    assert kinds(clean, clean) == []


def test_what_is_judged_together_is_looked_at_as_a_whole() -> None:
    """Each entry that differs is right by itself; so is each that does not."""
    mixed = [OF_1_5[0], OF_1_4[1], OF_1_5[2]]
    assert kinds(OF_1_5, mixed, POLICY, versions()) == ["file-versions-mixed"]
    code, states = (entry(MAIN), entry(PAGE)), (state(FIRST, OLD), state(SECOND, BAD))
    led_elsewhere = (*code, *volume(SECOND, *states))
    assert kinds((*code, *volume(FIRST, *states)), led_elsewhere, PROJECTED, STATED) == ["file-modified"]


def test_a_verdict_is_the_same_with_a_clean_layer_and_without() -> None:
    clean = Files(manifest.pack([entry(MAIN), entry(PAGE)]))
    claims, bodies = claimed((entry(MAIN, BAD), entry("/srv/app/new", GOOD[PAGE])))
    with_one = appraise(claims, bodies, governing(), clean=clean)
    assert with_one == appraise(claims, bodies, governing())
    assert [each.kind for each in with_one.reasons] == ["file-modified", "file-unreferenced", "file-missing"]
