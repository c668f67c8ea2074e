"""Attacks on measured files, from the act to what the mesh sees of the instance."""

from __future__ import annotations

from pathlib import Path

from tests.system.attacks.stage import scene

APART = ("unshare", "--mount", "--propagation", "private")
NET_RAW = "0100000200200000000000000000000000000000"


def test_a_write_that_changes_nothing_closes_where_code_is_immutable() -> None:
    def lay_out(measured: Path) -> dict[str, bool]:
        return {"immutable": True}

    with scene(lay_out=lay_out) as playing:
        playing.until_open()
        main = playing.folder / "app" / "main"
        main.touch()
        playing.attested()
        assert "violation" not in {each["event"] for each in playing.logs}
        playing.workload.do(f"open({str(main)!r}, 'r+').write('what')")
        told = playing.until_quarantined("file-written")
        assert (told["subject"], told["violation_class"]) == (str(main), "drift")
        playing.until_open(after=len(playing.logs))


def test_a_mount_over_code_closes_and_what_lies_below_it_opens_again_when_it_is_gone() -> None:
    with scene(workload=APART) as playing:
        playing.until_open()
        over = str(playing.folder / "app")
        playing.workload.do("import ctypes; libc = ctypes.CDLL(None)")
        playing.workload.do(f"assert libc.mount(b'none', {over.encode()!r}, b'tmpfs', 0, None) == 0")
        told = playing.until_quarantined("mount-changed")
        assert told["subject"] == over
        before = len(playing.logs)
        playing.workload.do(f"assert libc.umount2({over.encode()!r}, 0) == 0")
        playing.until_open(after=before)


def test_capabilities_that_a_file_is_given_close_and_are_found_by_the_authority_too() -> None:
    def lay_out(measured: Path) -> dict[str, bool]:
        (measured / "main").chmod(0o755)
        return {}

    with scene(lay_out=lay_out) as playing:
        playing.until_open()
        main = str(playing.folder / "app" / "main")
        playing.workload.do(f"os.setxattr({main!r}, 'security.capability', bytes.fromhex('{NET_RAW}'))")
        told = playing.until_quarantined("file-attributes")
        assert NET_RAW in told["text"]
        round_ = playing.until("round", lambda each: each["tier"] == "contraindicated")
        assert NET_RAW in str(round_["reasons"])
        before = len(playing.logs)
        playing.workload.do(f"os.removexattr({main!r}, 'security.capability')")
        playing.until_open(after=before)
