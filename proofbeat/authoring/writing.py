"""Reports and documents as files: for build servers, code hosts and authorities."""

from __future__ import annotations

from pathlib import Path

from attestation.errors import InvalidInput

_MOST_DOCUMENT = 16 * 1024 * 1024


def write(file: Path, text: str) -> None:
    """Raises InvalidInput where it cannot be written."""
    try:
        file.write_text(text)
    except OSError as error:
        raise InvalidInput(
            f"it cannot be written: {error.strerror}", where=str(file), mend="Make its folder, or name another file."
        ) from error


def write_references(file: Path | None, text: str, name: str) -> None:
    """Reference values; to stdout where no file is named. Raises InvalidInput for more than an authority reads."""
    if len(text.encode()) > _MOST_DOCUMENT:
        raise InvalidInput(
            f"{len(text)} characters, more than an authority reads of one file",
            where=name,
            mend="State less by --include, or build the base by itself and inherit it.",
        )
    if file is None:
        print(text, end="")
    else:
        write(file, text)
