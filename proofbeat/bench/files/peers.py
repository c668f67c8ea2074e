"""What is run over a tree to find what changed in it: AIDE, and find with sha256sum."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

MISSING = {"missing": "it is not installed here; `make bench-aide` installs it"}

_CONFIG = """database_in=file:{folder}/aide.db
database_out=file:{folder}/aide.new
gzip_dbout=no
report_url=file:{folder}/aide.report
{tree} p+u+g+s+i+c+sha256
"""


def sha256sum(tree: Path) -> float:
    """Seconds for every file once."""
    began = time.monotonic()
    with subprocess.Popen(["find", tree, "-type", "f", "-print0"], stdout=subprocess.PIPE) as names:
        subprocess.run(["xargs", "-0", "sha256sum"], stdin=names.stdout, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


class Aide:
    """A database of a tree, in a folder of its own. None of it is the machine's."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self._config = folder / "aide.conf"
        self._config.write_text(_CONFIG.format(folder=folder, tree=tree))
        self._run("--init")
        (folder / "aide.new").rename(folder / "aide.db")

    def check(self) -> float:
        """Seconds for every file once, held against the database."""
        began = time.monotonic()
        self._run("--check")
        return time.monotonic() - began

    def _run(self, what: str) -> None:
        subprocess.run(["aide", f"--config={self._config}", what], check=True, stdout=subprocess.DEVNULL)


def has_aide() -> bool:
    return shutil.which("aide") is not None
