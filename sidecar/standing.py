"""What the sidecar keeps between runs: the re-entry ticket, and whether the last run ended cleanly."""

from __future__ import annotations

import os
from pathlib import Path

from attestation.errors import InvalidConfiguration


class StateFolder:
    """A folder of the sidecar's own, mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ticket = folder / "ticket"
        self._running = folder / "running"

    def enter(self) -> bool:
        """Marks this run as begun; True when the last one did not end cleanly. Raises InvalidConfiguration."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            unclean = self._running.exists()
            self._running.touch(mode=0o600)
        except OSError as error:
            raise InvalidConfiguration(
                f"the state folder cannot be used: {error.strerror}",
                where=str(self.folder),
                mend="Name a folder in `state` that the sidecar may write.",
            ) from error
        return unclean

    def leave(self) -> None:
        """Marks this run as cleanly ended."""
        self._running.unlink(missing_ok=True)

    def ticket(self) -> str:
        """The ticket of the last enrolment; empty when there is none."""
        try:
            return self._ticket.read_text()
        except FileNotFoundError:
            return ""

    def keep_ticket(self, ticket: str) -> None:
        """Replaces the ticket in one step, durably: a lost ticket would cost a new join token."""
        fresh = self._ticket.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, ticket.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(self._ticket)
