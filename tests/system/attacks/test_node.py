"""A sidecar whose measurer is the node's: closed without it, open again once it is back."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.system.attacks.stage import scene
from tests.system.measurer.nodes import Node


def settings(node: Node, uid: int = 0) -> dict[str, object]:
    return {"placement": "node", "socket": str(node.socket), "uid": uid}


def test_a_sidecar_closes_when_the_nodes_measurer_is_killed_and_opens_when_it_is_back(tmp_path: Path) -> None:
    with Node(tmp_path) as node, scene(measurer=settings(node)) as play:
        first = play.proxy()
        assert play.measurer == node.process.pid
        play.until_open()
        node.process.kill()
        play.until_quarantined("measurer-lost")
        assert first.killed(), "nobody would cut what it has open"
        after = len(play.logs)
        with Node(tmp_path) as another:
            assert play.until("measurer-back", after=after)["measurer"] == another.process.pid
            play.until_open(after=after)
            second = play.proxy()
            (play.folder / "app" / "main").write_text("something else")
            play.until_quarantined("file-modified")
            second.until_poisoned()


def test_a_stopped_measurer_of_the_node_is_as_good_as_none(tmp_path: Path) -> None:
    with Node(tmp_path) as node, scene(measurer=settings(node)) as play:
        play.until_open()
        node.process.send_signal(signal.SIGSTOP)
        play.until_quarantined("measurer-lost")
        after = len(play.logs)
        node.process.send_signal(signal.SIGCONT)
        play.until("measurer-back", after=after)
        play.until_open(after=after)


def test_whoever_listens_in_the_nodes_place_is_told_nothing(tmp_path: Path) -> None:
    with Node(tmp_path) as node, scene(measurer=settings(node, uid=4242)) as play:
        assert play.sidecar.wait(15) == 1
