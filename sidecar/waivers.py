"""Which break-glass orders hold for this instance: told by the authority, believed for the operators' signatures alone.

The authority only carries them. Each is held against the operators of the policy in force here (and against the
sidecar's own, where its settings name any), against this trust domain, registration, identity and instance, and against
both clocks. One that has ended stays so, over restarts as well, whoever tells it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from attestation import breakglass
from attestation.breakglass import Order, Signed
from attestation.errors import InvalidConfiguration, MalformedResult
from policies.appraise.breakglass import Ground, held, permitted
from policies.model.breakglass import BreakGlassRules
from sidecar.states import Now, Waived, Waiver
from wire.messages import MOST_ORDERS

_MOST_BYTES = 1 << 20
_MOST_COMPLAINTS = 1000


@dataclass(frozen=True, slots=True)
class _Told:
    """boot_end: its end by CLOCK_BOOTTIME, reckoned when it was first told: setting a clock later does not move it."""

    signed: Signed
    boot_end: float

    @property
    def order(self) -> Order:
        return self.signed.order


class Waivers:
    """folder: where it is kept what has ended. own: operators of the sidecar's own settings, besides policy's.

    ground: what an order is held against, once there is a policy. step: hands the machine what is in force, each time
    that it is another one. refused: told of each order that does not hold here, once, and of what cannot be kept.
    """

    def __init__(
        self,
        folder: Path,
        own: BreakGlassRules | None,
        *,
        ground: Callable[[], Ground],
        now: Callable[[], Now],
        step: Callable[[Waived], None],
        refused: Callable[[str], None],
    ) -> None:
        self._ended = _Ended(folder / "breakglass-ended")
        self._own = own
        self._ground = ground
        self._now = now
        self._step = step
        self._refused = refused
        self._heard: tuple[str, ...] = ()
        self._told: Mapping[str, _Told] = {}
        self._held: dict[str, float] = {}
        """Those that have held here and have not ended, with their ends. What never held may be without end itself."""
        self._weighed: tuple[Ground | None, frozenset[str]] = (None, frozenset())
        self._in_force: Waiver | None = None
        self._complained: set[str] = set()

    def open(self) -> None:
        """What earlier runs knew to have ended. Raises InvalidConfiguration where it cannot be read."""
        self._ended.open()

    def told(self, orders: Sequence[str], *, final: bool) -> None:
        """The whole list. final: what is not on it any more has ended; else it is only not in force for now."""
        if (heard := tuple(orders[:MOST_ORDERS])) != self._heard:
            self._heard, self._weighed = heard, (None, frozenset())
            self._told = {each.order.id: each for text in heard if (each := self._read(text)) is not None}
        if final and (gone := self._held.keys() - self._told.keys()):
            self._held = {name: end for name, end in self._held.items() if name not in gone}
            self._end(gone)
        self.weigh()

    def weigh(self) -> None:
        """Another list, another policy or another time: is another order in force?"""
        waiver = self._foremost() if self._told else None
        if waiver != self._in_force:
            self._in_force = waiver
            self._step(Waived(waiver))

    def knows(self, identity: str) -> bool:
        """Is the order of this id in force here?"""
        return any(each.order.id == identity for each in self._holding())

    def _foremost(self) -> Waiver | None:
        """The one that ends last."""
        last = max(self._holding(), key=lambda each: (each.order.not_after, each.order.id), default=None)
        return Waiver(last.order.id, last.boot_end, float(last.order.not_after)) if last is not None else None

    def _holding(self) -> Iterator[_Told]:
        """Those that hold and are in force. Signatures are looked at once for each list and policy: they take time."""
        now, ground = self._now(), self._ground()
        if self._weighed[0] != ground:
            self._weighed = ground, frozenset(name for name, each in self._told.items() if self._holds(each, ground))
            standing = (name for name in self._weighed[1] if name not in self._ended)
            self._held.update((name, self._told[name].boot_end) for name in standing)
        for name, each in self._told.items():
            if (
                name in self._weighed[1]
                and name not in self._ended
                and each.order.in_force(now.wall)
                and now.boot < each.boot_end
            ):
                yield each

    def _read(self, text: str) -> _Told | None:
        try:
            signed = breakglass.from_text(text)
        except MalformedResult as error:
            self._complain(error.sentence)
            return None
        now = self._now()
        return _Told(signed, self._held.get(signed.order.id, now.boot + signed.order.not_after - now.wall))

    def _holds(self, told: _Told, ground: Ground) -> bool:
        faults = held(told.signed, ground).faults
        own = permitted(told.signed, self._own).faults if self._own is not None else ()
        for fault in (*faults, *(f"by this sidecar's own settings, {each}" for each in own)):
            self._complain(f"the break-glass order {told.order.id} does not hold here: {fault}")
        return not faults and not own

    def _complain(self, what: str) -> None:
        if what not in self._complained and len(self._complained) < _MOST_COMPLAINTS:
            self._complained.add(what)
            self._refused(what)

    def _end(self, gone: Set[str]) -> None:
        try:
            self._ended.add(gone)
        except OSError as error:
            self._refused(f"that {', '.join(sorted(gone))} ended cannot be kept: {error.strerror}")


class _Ended:
    """Ids of orders that have ended, one a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[str] = set()
        self._unsaved: set[str] = set()

    def __contains__(self, identity: str) -> bool:
        return identity in self._known

    def open(self) -> None:
        try:
            with self._path.open() as file:
                text = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(
                f"the break-glass orders that have ended cannot be read: {error}",
                where=str(self._path),
                mend="Give the sidecar a state folder of its own.",
            ) from error
        if len(text) > _MOST_BYTES:
            raise InvalidConfiguration(
                f"more than {_MOST_BYTES >> 10} KiB of break-glass orders have ended: not all of them would be known",
                where=str(self._path),
                mend="Start a new instance, with a state folder of its own.",
            )
        self._known.update(text.split())

    def add(self, identities: Set[str]) -> None:
        """In memory whatever the disk says, and on disk once. Raises OSError; what is missing there is kept next."""
        self._unsaved |= identities - self._known
        self._known |= identities
        if not self._unsaved:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, "".join(f"{each}\n" for each in sorted(self._unsaved)).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._unsaved.clear()
