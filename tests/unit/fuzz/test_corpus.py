"""Every parser holds its property on every input of the corpus: seeds of the real encoders, and what broke it once."""

from __future__ import annotations

import pytest

from tests.fuzz.catalogue import TARGETS
from tests.fuzz.target import CORPUS, Target

INPUTS = {
    f"{target.name}: {name}": (target, data) for target in TARGETS.values() for name, data in target.corpus().items()
}


@pytest.mark.parametrize("name", INPUTS)
def test_every_input_of_the_corpus_keeps_its_targets_property(name: str) -> None:
    target, data = INPUTS[name]
    target.check(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_target_stands_empty_and_endless_input(target: Target) -> None:
    for data in (b"", b"\0" * target.most_bytes, b"\xff" * target.most_bytes, b"[" * target.most_bytes):
        target.check(data)


def test_every_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= TARGETS.keys()
