"""The socket where Envoy fetches its key: who may, who else asked, and what that means."""

from __future__ import annotations

import os
from collections.abc import Callable

from attestation.layers import Layer
from attestation.signals import Signal
from attestation.violation import Violation, ViolationClass
from sidecar import clock
from sidecar.admission import KeyRules
from sidecar.config import DeliverySettings, WorkloadSettings
from sidecar.telling import Telling
from xds.acks import Verdict
from xds.admission import Admission, Refusal
from xds.listening import Endpoint
from xds.peer import Peer
from xds.server import Server


class KeySocket:
    """admitted: called with the process that takes the seat, before it is given anything; `vouched` has to follow.
    answered: called with each of its answers to what it is given.

    asked: called when another process wanted the key. own: says whether a process is the Envoy that we run ourselves;
    None where somebody else runs it.
    """

    def __init__(
        self,
        delivery: DeliverySettings,
        workload: WorkloadSettings,
        telling: Telling,
        *,
        admitted: Callable[[Peer], None],
        asked: Callable[[Violation], None],
        answered: Callable[[Verdict], None],
        own: Callable[[Peer], bool] | None = None,
    ) -> None:
        self._telling = telling
        self._admitted = admitted
        self._asked = asked
        self._own = own
        self._uids = frozenset(delivery.allow.uids or (os.getuid(),))
        self._unvouched: Peer | None = None
        self._rules = KeyRules(workload.pid, workload.cgroup, frozenset(delivery.allow.executables))
        self.server = Server(
            Endpoint(delivery.socket, mode=delivery.socket_mode),
            Admission(self._uids, self._admit, self._refused, self._seated),
            on_verdict=answered,
            clock=lambda: clock.now().boot,
        )

    @property
    def unvouched(self) -> bool:
        """Has the seat been taken by a process of which the measurer has not yet said that it is not the workload?"""
        return self._unvouched is not None

    def vouched(self, pid: int, *, workload: bool, outlives: str) -> None:
        """The measurer's word: it has heard of every fork, so that nobody leaves the workload by losing its parent."""
        taken = self._unvouched
        if taken is None or taken.pid != pid:
            return
        if workload:
            reason = f"process {pid} belongs to the workload, which it left by losing its parent"
            self._telling.envoy_refused(reason)
            self._asked(second_client(taken, reason, workload=True))
        else:
            self._unvouched = None
            self._telling.envoy_admitted(taken, outlives)

    def _admit(self, peer: Peer) -> Refusal | None:
        why = self._rules.refusal(peer.pid)
        if why is None and self._own is not None and not self._own(peer):
            why = f"process {peer.pid} ({peer.executable}) is not the Envoy that this sidecar runs"
        return Refusal(why) if why is not None else None

    def _seated(self, peer: Peer, new: bool) -> None:
        if new:
            self._unvouched = peer
            self._admitted(peer)

    def _refused(self, peer: Peer | None, refusal: Refusal) -> None:
        """Whoever cannot reach the key by user is told no and is no cause: anybody on the machine could do that."""
        self._telling.envoy_refused(refusal.reason)
        if peer is not None and peer.uid in self._uids:
            self._asked(second_client(peer, refusal.reason, workload=self._rules.of_workload(peer.pid)))


def second_client(peer: Peer, reason: str, *, workload: bool) -> Violation:
    """Somebody else asked for the key. The workload asking is tampering; a stranger is drift."""
    return Violation(
        Signal.KEY_SOCKET_SECOND_CLIENT,
        ViolationClass.TAMPER if workload else ViolationClass.DRIFT,
        Layer.ATTESTER,
        peer.executable or f"pid {peer.pid}",
        reason,
        clock.now().boot,
        "one Envoy fetches the key",
        "Stop the other client, or end the first Envoy before its successor starts.",
    )
