"""Who may connect: allowed users, the caller's own rules, and one client process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from xds.peer import Peer, has_ended


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a client may not connect, for the operator."""

    reason: str


def _anyone(peer: Peer) -> Refusal | None:
    return None


def _silence(peer: Peer | None, refusal: Refusal) -> None:
    return None


def _no_ceremony(peer: Peer, new: bool) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Admission:
    """The rules. `on_refused` hears of every refusal; its peer is None when the process could not be identified.

    A refused peer's pidfd is open during `on_refused` only; duplicate it to keep it. `on_seated` hears of every
    connection that is let in, before a byte is sent to it; its second argument says whether the process is a new one.
    """

    uids: frozenset[int]
    admit: Callable[[Peer], Refusal | None] = _anyone
    on_refused: Callable[[Peer | None, Refusal], None] = _silence
    on_seated: Callable[[Peer, bool], None] = _no_ceremony


class Seat:
    """The place of the one client process that may receive resources.

    It is kept for that process until it has ended, not until its connection closes: a client that reconnects must
    not find another in its place.
    """

    def __init__(self, rules: Admission) -> None:
        self._rules = rules
        self._holder: Peer | None = None

    @property
    def holder(self) -> Peer | None:
        """The process in the seat, if it still runs. Its pidfd belongs to the seat."""
        if self._holder is not None and has_ended(self._holder.pidfd):
            self.vacate()
        return self._holder

    def take(self, peer: Peer) -> Refusal | None:
        """Seat `peer`, or say why not."""
        if peer.uid not in self._rules.uids:
            allowed = ", ".join(str(uid) for uid in sorted(self._rules.uids)) or "none"
            return Refusal(f"user {peer.uid} may not connect (process {peer.pid}); allowed users: {allowed}")
        if refusal := self._rules.admit(peer):
            return refusal
        holder = self.holder
        if holder is None:
            self._holder = _owned(peer)
            self._rules.on_seated(peer, True)
            return None
        if holder.identity != peer.identity:
            return Refusal(
                f"process {peer.pid} ({peer.executable}) is a second client; "
                f"process {holder.pid} ({holder.executable}) is served until it ends"
            )
        self._rules.on_seated(peer, False)
        return None

    def vacate(self) -> None:
        """Free the seat."""
        if self._holder is not None:
            os.close(self._holder.pidfd)
            self._holder = None


def _owned(peer: Peer) -> Peer:
    return Peer(
        peer.pid,
        peer.uid,
        peer.gid,
        os.dup(peer.pidfd),
        peer.start_time,
        peer.executable,
        peer.identity,
    )
