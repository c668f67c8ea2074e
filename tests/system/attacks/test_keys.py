"""Attacks on the key socket."""

from __future__ import annotations

from tests.system.attacks.stage import REFUSED, scene, user

US, OTHERS = 61803, 61804


def test_root_in_the_workload_that_becomes_our_user_is_refused_the_key() -> None:
    limited = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all")
    ours = user(US, "dac_read_search", "sys_ptrace", "kill")
    with scene(workload=limited, sidecar=ours, owner=US) as playing:
        playing.until_open()
        playing.isolation(lambda each: each.workload_can_become_us and each.distinct_user)
        playing.workload.do(f"os.setresgid({US}, {US}, {US}); os.setresuid({US}, {US}, {US})")
        through = f"/proc/{playing.sidecar.pid}/root{playing.socket}"
        assert playing.workload.tries(f"ask({through!r})") == "PermissionError"
        assert playing.workload.tries(f"ask({str(playing.socket)!r})") == REFUSED
        told = playing.until_quarantined("key-socket-second-client")
        assert told["violation_class"] == "tamper"
