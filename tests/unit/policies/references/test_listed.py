"""What others say the files are: bills of materials and Keylime policies, taken as far as they go and no further."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from attestation.patterns import matches
from policies.author.references import keylime, sbom
from policies.author.references.build import Report, Wishes
from policies.author.references.sources import Source, Terms, build, told_apart
from tests.unit.policies.references.packing import budget
from tests.unit.policies.references.shipped import (
    KEY,
    ONE,
    TWO,
    component,
    cyclonedx,
    keylime_policy,
    signed,
    spdx,
    spdx_file,
)

# --- CycloneDX ---


def test_files_of_a_cyclonedx_document_are_taken_wherever_they_are_nested() -> None:
    report = Report()
    nested = component("app", kind="application", components=[component("/srv/a", ("SHA-256", ONE))])
    found = sbom.cyclonedx(cyclonedx(nested, component("/srv/b", ("SHA-1", "0" * 40), ("SHA-256", TWO))), "x", report)
    assert found.files == {"/srv/a": (ONE,), "/srv/b": (TWO,)}
    assert (report.skipped["no-file"].count, report.skipped["no-file"].examples) == (1, ["app"])


def test_a_file_without_sha_256_is_counted_and_named_and_not_stated() -> None:
    report = Report()
    components = (component("/a", ("SHA-256", ONE)), component("/weak", ("MD5", "0" * 32)), component("/none"))
    assert sbom.cyclonedx(cyclonedx(*components), "x", report).files.keys() == {"/a"}
    assert report.skipped["no-sha256"].examples == ["/weak", "/none"]


def test_two_sha_256_of_one_file_are_none() -> None:
    report = Report()
    twice = component("/twice", ("SHA-256", ONE), ("SHA-256", TWO))
    assert sbom.cyclonedx(cyclonedx(component("/a", ("SHA-256", ONE)), twice), "x", report).files.keys() == {"/a"}
    assert report.skipped["no-sha256"].examples == ["/twice"]


def test_relative_names_count_from_where_the_workload_has_them_and_digits_have_one_spelling() -> None:
    found = sbom.cyclonedx(cyclonedx(component("./bin/a", ("SHA-256", ONE.upper()))), "x", Report(), ("srv", "app"))
    assert found.files == {"/srv/app/bin/a": (ONE,)}


@pytest.mark.parametrize("name", ["/a/../b", "/a//b", "", "/", "/a/./b", "../a"])
def test_what_is_no_path_is_not_stated(name: str) -> None:
    report = Report()
    sbom.cyclonedx(cyclonedx(component("/a", ("SHA-256", ONE)), component(name, ("SHA-256", TWO))), "x", report)
    assert report.skipped["unnameable"].examples == [name]


def test_one_path_with_two_contents_is_refused() -> None:
    layers = cyclonedx(component("/a", ("SHA-256", ONE)), component("/a", ("SHA-256", TWO)))
    with pytest.raises(InvalidInput, match="/a is listed with different contents"):
        sbom.cyclonedx(layers, "x", Report())


def test_a_document_that_lists_no_file_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no file with a SHA-256"):
        sbom.cyclonedx(cyclonedx(component("libc", kind="library")), "x", Report())


def test_components_in_components_without_end_are_refused() -> None:
    nested = component("/a", ("SHA-256", ONE))
    for _ in range(100):
        nested = component("x", kind="application", components=[nested])
    with pytest.raises(InvalidInput, match="nested deeper than 64"):
        sbom.cyclonedx(cyclonedx(nested), "x", Report())


# --- SPDX ---


def test_files_of_an_spdx_document_are_taken() -> None:
    report = Report()
    found = sbom.spdx(
        spdx(spdx_file("./usr/a", SHA1="0" * 40, SHA256=ONE), spdx_file("/b", SHA1="0" * 40)), "x", report
    )
    assert found.files == {"/usr/a": (ONE,)}
    assert report.skipped["no-sha256"].examples == ["/b"]


@pytest.mark.parametrize("version", ["SPDX-3.0", "", 5])
def test_another_spdx_is_refused(version: Any) -> None:
    with pytest.raises(InvalidInput, match="SPDX 2 is known here"):
        sbom.spdx({"spdxVersion": version, "files": []}, "x", Report())


# --- Keylime ---


def test_a_keylime_policy_is_taken_as_what_may_be_there() -> None:
    report = Report()
    found = keylime.policy(keylime_policy(), "x", report)
    assert found.files == {"/usr/bin/a": (ONE, TWO)}
    assert report.skipped["no-path"].examples == ["boot_aggregate"]
    assert report.skipped["no-sha256"].examples == ["/usr/lib/weak.so"]


def test_what_is_no_file_of_a_keylime_policy_is_told() -> None:
    report = Report()
    more = {
        "keyrings": {".ima": [ONE]},
        "ima-buf": {"x": [ONE]},
        "verification-keys": "key",
        "ima": {"dm_policy": {"version": 1}},
    }
    keylime.policy(keylime_policy(**more), "x", report)
    assert {"keyrings", "ima-buf", "verification-keys", "dm_policy"} <= report.skipped.keys()


def test_excludes_are_proposed_and_never_applied() -> None:
    report = Report()
    policy = keylime_policy(excludes=["/tmp/.*", "^/var/log", "/usr/bin/a$", "/(a|b)/.*"])
    assert "/usr/bin/a" in keylime.policy(policy, "x", report).files
    assert report.proposed == {"volatile": ["/tmp/**", "/var/log**", "/usr/bin/a"]}
    assert report.skipped["exclude"].examples == ["/(a|b)/.*"]


@pytest.mark.parametrize(
    ("expression", "pattern"),
    [
        ("/tmp/.*", "/tmp/**"),
        ("/tmp/.*$", "/tmp/**"),
        ("^/tmp/.*\\.log$", "/tmp/**.log"),
        ("/tmp", "/tmp**"),
        ("/tmp$", "/tmp"),
        ("/opt/my\\-app/.*", "/opt/my-app/**"),
        ("/usr/lib/python3.11/.*", None),
        ("/.*/cache", None),
        ("/.*.*/cache", None),
        ("/a.*.*/cache$", "/a****/cache"),
        ("/a.*/cache$", "/a**/cache"),
        ("/a+/.*", None),
        ("/ab*/.*", None),
        ("/a?", None),
        ("/a[bc]", None),
        ("/a\\d", None),
        ("/a{2}", None),
        ("/a|/b", None),
        ("/a\\$", None),
        ("/a$b", None),
        ("boot_aggregate", None),
        (".*", None),
        ("", None),
    ],
)
def test_an_expression_is_a_pattern_only_where_that_says_the_same(expression: str, pattern: str | None) -> None:
    assert keylime.glob(expression) == pattern


PIECES = st.sampled_from(["/tmp", "/", "a", "\\.", ".*", "log", "\\-", "b-c", "?", "+", ".", "[ab]", "(a|b)"])


@settings(max_examples=500, deadline=None)
@given(
    st.lists(PIECES, max_size=5).map("".join),
    st.booleans(),
    st.booleans(),
    st.text("/tmpalogb.-c", min_size=1, max_size=14).map(lambda path: "/" + path),
)
def test_a_pattern_matches_exactly_what_keylime_would_have_excluded(
    body: str, begins: bool, ends: bool, path: str
) -> None:
    expression = f"{'^' * begins}/{body}{'$' * ends}"
    pattern = keylime.glob(expression)
    if pattern is not None:
        assert matches(path, (pattern,)) is bool(re.compile(f"({expression})").match(path))


def test_a_signed_policy_is_opened_and_held_to_the_key_that_is_named() -> None:
    assert keylime.policy(signed(keylime_policy()), "x", Report(), key=KEY.public_key()).files
    report = Report()
    assert keylime.policy(signed(keylime_policy()), "x", report).files
    assert "It is signed, and by whom was not asked: name the key by --signed-by." in report.notes


def altered() -> dict[str, Any]:
    envelope = signed(keylime_policy())
    return envelope | {"payload": base64.b64encode(json.dumps(keylime_policy(digests={"/x": [ONE]})).encode()).decode()}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (signed(keylime_policy(), ec.generate_private_key(ec.SECP256R1())), "no signature of it is by the key"),
        (altered(), "no signature of it is by the key"),
        (signed(keylime_policy()) | {"signatures": []}, "no signature of it is by the key"),
        (signed(keylime_policy()) | {"signatures": [{"sig": "AAAA"}]}, "no signature of it is by the key"),
        (signed(keylime_policy()) | {"signatures": [{"sig": "*"}]}, "not base64"),
        (signed(keylime_policy(), kind="text/plain"), "an envelope around 'text/plain'"),
        (signed(keylime_policy()) | {"payload": 5}, "no signature of it is by the key"),
        (keylime_policy(), "it is not signed"),
    ],
)
def test_a_policy_that_the_named_key_did_not_sign_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        keylime.policy(document, "x", Report(), key=KEY.public_key())


@pytest.mark.parametrize(
    "policy", [{}, {"meta": {"version": 2}, "digests": {}}, {"hashes": {}}, {"meta": 1, "digests": {}}]
)
def test_what_is_no_keylime_policy_of_version_1_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="no Keylime runtime policy of version 1"):
        keylime.policy(policy, "x", Report())


# --- told apart, and on to reference values ---


def written(tmp_path: Path, document: Any) -> Path:
    file = tmp_path / "document"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    ("document", "source"),
    [
        (cyclonedx(component("/a", ("SHA-256", ONE))), Source.CYCLONEDX),
        (spdx(spdx_file("/a", SHA256=ONE)), Source.SPDX),
        (keylime_policy(), Source.KEYLIME),
        (signed(keylime_policy()), Source.KEYLIME),
    ],
)
def test_each_document_is_known_by_what_is_in_it(tmp_path: Path, document: Any, source: Source) -> None:
    assert told_apart(written(tmp_path, document), budget()) is source
    assert build([tmp_path / "document"], None, Terms(Wishes()), budget()).source is source


def test_of_a_bill_of_materials_only_what_is_named_may_run_and_everything_must_be_there(tmp_path: Path) -> None:
    document = cyclonedx(component("/bin/a", ("SHA-256", ONE)), component("/lib/b", ("SHA-256", TWO)))
    found = build([written(tmp_path, document)], None, Terms(Wishes(executables=("/bin/*",))), budget())
    assert found.spec.executables == {"/bin/a": (ONE,)}
    assert [each.optional for each in found.spec.files.values()] == [False, False]
    assert build([tmp_path / "document"], None, Terms(Wishes()), budget()).report.notes


def test_of_a_keylime_policy_everything_may_run_unless_less_is_named_and_nothing_must_be_there(tmp_path: Path) -> None:
    file = written(tmp_path, keylime_policy(digests={"/bin/a": [ONE], "/bin/b": [TWO]}))
    found = build([file], None, Terms(Wishes()), budget())
    assert found.spec.executables == {"/bin/a": (ONE,), "/bin/b": (TWO,)}
    assert all(each.optional for each in found.spec.files.values())
    less = build([file], None, Terms(Wishes(include=("/bin/b",), executables=("/bin/b",))), budget())
    assert (set(less.spec.files), less.spec.executables) == ({"/bin/b"}, {"/bin/b": (TWO,)})


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "nothing", "", '{"a": 1, "a": 2}', "{" * 100_000])
def test_what_is_none_of_all_this_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "document").write_text(text)
    with pytest.raises(InvalidInput):
        build([tmp_path / "document"], None, Terms(Wishes()), budget())
