"""Who is here and who is gone, as an operator wants to see it: pure, over what the store knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from attestation.errors import InvalidInput, Refused
from attestation.instance import InstanceId
from authority.store.records import InstanceState, State
from wire.problems import Kind

_MOST_NAMED = 5


def called(
    states: Iterable[InstanceState], connected: Collection[InstanceId], now_ms: int, retire_after_ms: int
) -> tuple[InstanceState, ...]:
    """Every instance with its state as of now, and whether it is gone.

    connected: those with a session. Gone is who said goodbye, or has had no session and no lease for so long. Who is
    quarantined is gone only when another instance of its registration has come after it and has been appraised: then
    that one is what somebody has to look at. Its record stays, and it stays refused if it comes back.
    """
    present = [_current(each, now_ms) for each in states]
    replaced: dict[str, int] = {}
    for each in present:
        if each.last_round_ms:
            replaced[each.registration] = max(replaced.get(each.registration, 0), each.enrolled_ms)
    silent_since_ms = now_ms - retire_after_ms
    return tuple(
        replace(each, gone=_gone(each, each.instance in connected, replaced, silent_since_ms)) for each in present
    )


def chosen(asked: str, among: Collection[InstanceState]) -> InstanceState:
    """The one instance that is meant. Of several, those that are not gone count; of gone ones, the latest.

    Raises Refused (instance-unknown), and InvalidInput where several are meant.
    """
    if not among:
        raise Refused(
            f"no instance goes by {asked!r}",
            kind=Kind.INSTANCE_UNKNOWN,
            where="why",
            mend="`proofbeat status --all` lists every one; give its id, the beginning of it, or a registration.",
        )
    here = [each for each in among if not each.gone]
    if len(here) > 1:
        names = ", ".join(each.instance.value for each in here[:_MOST_NAMED])
        raise InvalidInput(f"{asked!r} means {len(here)} instances", where="why", mend=f"Name one of them: {names}.")
    return here[0] if here else max(among, key=lambda each: each.enrolled_ms)


def _current(each: InstanceState, now_ms: int) -> InstanceState:
    """A lease can have ended since the last housekeeping."""
    if each.state.open and each.lease_end_ms <= now_ms:
        return replace(each, state=State.STALE, since_ms=each.lease_end_ms)
    return each


def _gone(each: InstanceState, connected: bool, replaced: dict[str, int], silent_since_ms: int) -> bool:
    if connected:
        return False
    heard = max(each.enrolled_ms, each.last_round_ms, each.lease_end_ms, each.left_ms)
    if not each.ended_clean and heard > silent_since_ms:
        return False
    return each.state is not State.QUARANTINED or replaced.get(each.registration, 0) > each.enrolled_ms
