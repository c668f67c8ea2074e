"""Whatever happens to a tree, and while it is being measured, events alone lead to the manifest that is true."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from attestation import manifest
from attestation.channel import Measure, Observed, Scope
from attestation.layers import Layer
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import User
from tests.system.measurer.test_files import independently

SIZES = (0, 10, 5_000, 400_000, 1_500_000)


def act(tree: Path, dice: random.Random) -> None:
    """One act on a random file or folder; what cannot be done is left undone."""
    folders = [tree, *(path for path in tree.rglob("*") if path.is_dir())]
    files = [path for path in tree.rglob("*") if path.is_file()] or [tree / "none"]
    folder, file, throw = dice.choice(folders), dice.choice(files), dice.random()
    with suppress(OSError):
        if throw < 0.35:
            (folder / f"f{dice.randrange(40)}").write_bytes(dice.randbytes(8) * (dice.choice(SIZES) // 8))
        elif throw < 0.5:
            (folder / f"d{dice.randrange(8)}").mkdir()
        elif throw < 0.62:
            file.unlink()
        elif throw < 0.76 and len(folders) > 1:
            dice.choice(folders[1:]).rename(folder / f"d{dice.randrange(8)}")
        elif throw < 0.86:
            file.rename(folder / f"f{dice.randrange(40)}")
        elif throw < 0.94:
            file.chmod(dice.choice([0o644, 0o755]))
        elif len(folders) > 1:
            shutil.rmtree(dice.choice(folders[1:]))


@pytest.mark.parametrize(
    "user", [pytest.param("root", marks=needs_root, id="fanotify"), pytest.param("nobody", id="inotify")]
)
@pytest.mark.parametrize("seed", range(3))
def test_after_any_churn_the_last_observation_is_true(
    user: str, seed: int, tree: Path, request: pytest.FixtureRequest
) -> None:
    whom: User = request.getfixturevalue(user)
    dice, workload = random.Random(seed), whom.workload()  # noqa: S311 - nothing secret is drawn
    os.umask(0o022)
    try:
        with whom.sidecar(Scope(workload.pid, (str(tree),), deadman=60.0)) as sidecar:
            sidecar.settle()
            for number in range(250):
                act(tree, dice)
                if number % 25 == 0:
                    sidecar.send(Measure((Layer.FILES,), 0.0, full=number % 50 == 0))
            wanted = manifest.digest(manifest.pack(independently(tree)))
            sidecar.expect(
                Observed, lambda each: each.observation.layer is Layer.FILES and each.observation.digest == wanted
            )
            assert sidecar.files(full=True)[0].observation.digest == wanted
    finally:
        workload.end()
