"""Reports as files, for build servers and code hosts."""

from __future__ import annotations

from pathlib import Path

from attestation.errors import InvalidInput


def write(file: Path, text: str) -> None:
    """Raises InvalidInput where it cannot be written."""
    try:
        file.write_text(text)
    except OSError as error:
        raise InvalidInput(
            f"it cannot be written: {error.strerror}", where=str(file), mend="Make its folder, or name another file."
        ) from error
