"""What the sidecar keeps between runs: the re-entry ticket, and whether the last run ended cleanly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attestation.errors import InvalidConfiguration, Unavailable

_TICKET_SIZE = 4096
"""Bytes: more than a ticket has."""


class StateFolder:
    """A folder of the sidecar's own, mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ticket = folder / "ticket"
        self._fresh = folder / "ticket.new"
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

    def make_room(self) -> None:
        """Takes the disk space of the next ticket before it is asked for: one that could not be kept is spent.

        Raises Unavailable.
        """
        with self._writing():
            self._write(b" " * _TICKET_SIZE)

    def keep_ticket(self, ticket: str) -> None:
        """Replaces the ticket in one step, durably: a lost ticket would cost a new join token. Raises Unavailable."""
        with self._writing():
            self._write(ticket.encode())
            self._fresh.replace(self._ticket)

    def _write(self, content: bytes) -> None:
        """In place, so that the room made before is used."""
        descriptor = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, content)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"the ticket cannot be kept: {error.strerror}",
                where=str(self.folder),
                mend="Make room there, or let the sidecar write.",
            ) from error
