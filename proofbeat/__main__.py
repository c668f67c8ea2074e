"""`proofbeat` and `python -m proofbeat`."""

from __future__ import annotations

from proofbeat.cli import main

if __name__ == "__main__":
    main()
