"""Debian packages: what they install, whose index names them, and what dpkg knows of a root."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from attestation.errors import InvalidInput
from policies.author.references import debian, dpkg, folder
from policies.author.references.build import Report, Wishes, spec_of
from policies.author.references.images import Start
from policies.author.references.tree import Tree
from policies.model.references import FileReference
from tests.unit.policies.references.packing import Put, budget, digest, packed
from tests.unit.policies.references.shipped import APP, CONTROL, ar, deb, zstd
from tests.unit.policies.references.test_layers import contents


def named(name: str) -> bytes:
    return CONTROL.replace(b"web", name.encode())


def installed(tmp_path: Path, *packages: bytes, index: debian.Index | None = None) -> tuple[Tree, Report]:
    report, paths = Report(), []
    for number, content in enumerate(packages):
        paths.append(tmp_path / f"{number}.deb")
        paths[-1].write_bytes(content)
    return debian.installed(paths, index, budget(), report), report


def fault(tmp_path: Path, *packages: bytes, index: debian.Index | None = None) -> str:
    with pytest.raises(InvalidInput) as raised:
        installed(tmp_path, *packages, index=index)
    return raised.value.sentence


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, zstd, bytes])
def test_what_a_package_installs_is_stated(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    tree, _ = installed(tmp_path, deb(*APP, pack=pack))
    assert contents(tree) == {"/usr/bin/web": (digest(b"main"), 0o755), "/etc/web.conf": (digest(b"conf"), 0o644)}


def test_what_dpkg_itself_builds_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_bytes(CONTROL + b"Maintainer: A <a@example.org>\n")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/web").write_bytes(b"main")
    (root / "usr/bin/link").symlink_to("web")
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", root, tmp_path / "web.deb"], capture_output=True, check=True
    )
    tree = debian.installed([tmp_path / "web.deb"], None, budget(), Report())
    assert contents(tree) == {"/usr/bin/web": (digest(b"main"), 0o644), "/usr/bin/link": "web"}


def test_packages_are_laid_into_each_other_as_dpkg_does_it(tmp_path: Path) -> None:
    base = deb(Put("./lib", link="usr/lib"), Put("./usr/lib"), control=named("base"))
    library = deb(Put("./lib"), Put("./lib/libc.so", b"c"), control=named("libc"))
    tree, _ = installed(tmp_path, base, library)
    assert contents(tree) == {"/lib": "usr/lib", "/usr/lib/libc.so": (digest(b"c"), 0o644)}


def test_what_two_packages_have_alike_is_no_matter_and_what_differs_is_refused(tmp_path: Path) -> None:
    shared = Put("./usr/share/doc", b"same")
    assert contents(installed(tmp_path, deb(shared), deb(shared, control=named("api")))[0]).keys() == {"/usr/share/doc"}
    said = fault(tmp_path, deb(shared), deb(Put("./usr/share/doc", b"other"), control=named("api")))
    assert "both web 1.5-1 amd64 and api 1.5-1 amd64 have /usr/share/doc" in said


def test_what_an_administrator_may_change_is_proposed_and_what_scripts_make_is_told(tmp_path: Path) -> None:
    _, report = installed(tmp_path, deb(*APP, conffiles=b"/etc/web.conf\nremove-on-upgrade /etc/old\n", scripts=True))
    assert report.proposed == {"configuration": ["/etc/web.conf"]}
    assert "What scripts make when these are installed is not stated: web." in report.notes


# --- a repository's index ---


def indexed(tmp_path: Path, sha256: str, pack: Callable[[bytes], bytes] = bytes) -> debian.Index:
    text = b"Package: other\nVersion: 1\nArchitecture: all\nSHA256: %s\n\n" % (b"0" * 64) + CONTROL
    (tmp_path / "Packages").write_bytes(pack(text + b"Filename: pool/web.deb\nSHA256: %s\n" % sha256.encode()))
    return debian.index(tmp_path / "Packages", budget())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_package_that_the_index_names_is_taken(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    package = deb(*APP)
    _, report = installed(tmp_path, package, index=indexed(tmp_path, digest(package), pack))
    assert not any("was not checked" in note for note in report.notes)


def test_a_package_that_the_index_does_not_name_so_is_refused(tmp_path: Path) -> None:
    assert "is not what the repository's index states" in fault(tmp_path, deb(*APP), index=indexed(tmp_path, "1" * 64))
    other = deb(*APP, control=named("api"))
    assert "is not in the repository's index" in fault(tmp_path, other, index=indexed(tmp_path, digest(other)))


@pytest.mark.parametrize("content", [b"", b"\x04\x22\x4d\x18 packed with lz4", b"Package: web\nMD5sum: 0\n"])
def test_an_index_that_lists_nothing_is_not_taken_for_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "Packages").write_bytes(content)
    with pytest.raises(InvalidInput, match="no package with a SHA-256 is listed there"):
        debian.index(tmp_path / "Packages", budget())


def test_that_nobody_checked_where_packages_come_from_is_told(tmp_path: Path) -> None:
    assert any("was not checked" in note for note in installed(tmp_path, deb(*APP))[1].notes)


def test_every_byte_of_a_package_counts_also_where_nothing_is_read_from_it(tmp_path: Path) -> None:
    package = deb(*APP)
    other = package.replace(b"debian-binary   0", b"debian-binary   1")
    assert contents(installed(tmp_path, other)[0]) == contents(installed(tmp_path, package)[0])
    assert "is not what" in fault(tmp_path, other, index=indexed(tmp_path, digest(package)))


# --- what is no package ---

PARTS = ((b"control.tar", packed(Put("control", CONTROL))), (b"data.tar", packed(*APP)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no Debian package"),
        (b"!<arch>\n", "no Debian package of version 2"),
        (ar(*PARTS), "no Debian package of version 2"),
        (ar((b"debian-binary", b"3.0\n"), *PARTS), "no Debian package of version 2"),
        (ar((b"debian-binary", b"2.0\n"), PARTS[0]), "no control.tar or no data.tar"),
        (ar((b"debian-binary", b"2.0\n"), PARTS[1]), "no control.tar or no data.tar"),
        (ar((b"debian-binary", b"2.0\n"), *PARTS, PARTS[1]), "a part of it that is not known, 'data.tar'"),
        (ar((b"debian-binary", b"2.0\n"), PARTS[1], PARTS[0]), "a part of it that is not known, 'control.tar'"),
        (ar((b"debian-binary", b"2.0\n"), (b"evil", b""), *PARTS), "a part of it that is not known, 'evil'"),
        (ar((b"debian-binary", b"2.0\n"), *PARTS)[:-600], "cut short"),
        (ar((b"debian-binary", b"2.0\n"), *PARTS) + b"x" * 60, "without a proper header"),
        (ar((b"debian-binary", b"2.0\n"), *PARTS).replace(b"`\n", b"xx"), "without a proper header"),
        (deb(Put("./a", b"1"), Put("./a", b"2")), "/a stands twice"),
        (deb(Put("./a", hard="./b")), "hard link to what is not in it"),
        (deb(Put("../a", b"1")), "leads out of the archive"),
    ],
)
def test_what_is_no_package_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in fault(tmp_path, content)


def test_a_part_whose_name_begins_with_a_line_is_passed_over(tmp_path: Path) -> None:
    parts = ((b"debian-binary", b"2.0\n"), (b"_gpgorigin", b"signature"), *PARTS)
    assert contents(installed(tmp_path, ar(*parts))[0])


# --- what dpkg knows of a root ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one package, on which /lib is a link; and one file that no package has."""
    for name, content in {"usr/bin/web": b"main", "usr/lib/c.so": b"c", "usr/local/own": b"own"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "lib").symlink_to("usr/lib")
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    known = {"usr/bin/web": b"main", "lib/c.so": b"c", "usr/share/gone": b"gone"}
    sums = "".join(f"{hashlib.md5(content).hexdigest()}  {name}\n" for name, content in known.items())  # noqa: S324 - dpkg's
    (info / "web.md5sums").write_text(sums)
    (info / "web.list").write_text("/.\n")
    return tmp_path


def stated(root: Path) -> dict[str, FileReference]:
    wishes = Wishes(include=("/usr", "/lib"))
    return spec_of(folder.read(root, budget()), Start(), wishes, Report()).files


def test_files_are_held_against_what_their_packages_shipped(root: Path) -> None:
    found = dpkg.provenance(root, stated(root), budget())
    assert (found.packaged, found.unlisted, found.clean) == (2, 2, True), "the link and the own file are of no package"


def test_a_file_that_was_altered_since_it_was_packaged_is_named(root: Path) -> None:
    (root / "usr/bin/web").write_bytes(b"evil")
    found = dpkg.provenance(root, stated(root), budget())
    assert (found.altered, found.other, found.clean) == (["/usr/bin/web"], [], False)


def test_a_root_with_another_content_than_is_stated_is_told(root: Path) -> None:
    files = stated(root)
    (root / "usr/bin/web").write_bytes(b"evil")
    found = dpkg.provenance(root, files, budget())
    assert (found.altered, found.other, found.clean) == ([], ["/usr/bin/web"], False)


def test_a_root_without_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no package is installed there"):
        dpkg.provenance(tmp_path, {}, budget())


def test_no_link_of_a_root_leads_out_of_it(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "web").write_bytes(b"main")
    (root / "usr/bin/web").unlink()
    (root / "usr/bin/web").symlink_to(outside / "web")
    files = {"/usr/bin/web": FileReference.model_validate({"digests": [digest(b"main")]})}
    assert dpkg.provenance(root, files, budget()).packaged == 0
