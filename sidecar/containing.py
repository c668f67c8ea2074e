"""The workload itself, as far as the sidecar has to do with it: orders that follow the state, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from attestation import strictjson
from attestation.channel import Bundled, Contain, Contained
from attestation.containment import Containment
from attestation.errors import InvalidInput
from attestation.instance import InstanceId
from attestation.plain import build, plain
from attestation.violation import Violation
from policies.model.policy import ContainmentRules
from sidecar.config import ForensicsSettings
from sidecar.containment import class_of, wanted
from sidecar.states import Now, State
from sidecar.telling import Telling
from wire.messages import Report

_DONE = {
    Containment.DENY_EGRESS: "Nothing that it connects to elsewhere passes until its traffic is opened again",
    Containment.FREEZE: "Its processes are frozen until its traffic is opened again",
    Containment.KILL: "Its processes are killed",
}


@dataclass(frozen=True, slots=True)
class Kept:
    """What an instance is under, for the next run of this program."""

    instance: InstanceId
    how: Containment


class Containing:
    """order: hands it to the measurer, at once. keep: writes a bundle, of which the violation is the cause; its body is
    None where there is none."""

    def __init__(
        self,
        folder: Path,
        settings: ForensicsSettings,
        telling: Telling,
        *,
        order: Callable[[Contain], None],
        keep: Callable[[Violation, Bundled, bytes | None], None],
        now: Callable[[], Now],
    ) -> None:
        self._kept = folder / "contained.json"
        self._settings, self._telling = settings, telling
        self._order, self._keep, self._clock = order, keep, now
        self._rules = ContainmentRules()
        self._instance: InstanceId | None = None
        self._how = Containment.NONE
        self._before = False
        self._number = 0
        self._ordered_at = 0.0
        self._bundles: dict[int, Violation] = {}
        self._latest_bundle = float("-inf")

    @property
    def how(self) -> Containment:
        """What the workload is ordered to be under."""
        return self._how

    def recall(self, instance: InstanceId) -> None:
        """What an earlier run did to this instance lasts. What cannot be read any more counts as frozen."""
        self._instance = instance
        try:
            kept = build(Kept, strictjson.loads(self._kept.read_bytes()), str(self._kept))
        except FileNotFoundError:
            return
        except (OSError, ValueError, InvalidInput):
            kept = Kept(instance, Containment.FREEZE)
        if kept.instance == instance:
            self._how, self._before = kept.how, kept.how.stops

    def rule(self, rules: ContainmentRules) -> None:
        """By this from the next step on."""
        self._rules = rules

    def follow(self, before: State, after: State) -> None:
        """After a step, and after whatever it closed or opened."""
        how = wanted(self._how, after, self._rules)
        cause = self._to_be_kept(before, after)
        if how is self._how and cause is None:
            return
        if how is not Containment.NONE:
            self._remember(how)
        self._how = how
        self._send(cause)

    def repeat(self) -> None:
        """To a measurer that was started anew and knows of nothing."""
        if self._how is not Containment.NONE:
            self._before = self._before or self._how.stops
            self._send(None)

    def contained(self, done: Contained) -> None:
        if done.number == 0:
            if self._rules != ContainmentRules():
                self._telling.containable(done)
            return
        self._telling.contained(done, self._clock().boot - self._ordered_at)
        if done.how is Containment.NONE and self._how is Containment.NONE:
            self._before = False
            self._kept.unlink(missing_ok=True)

    def bundled(self, told: Bundled, body: bytes | None) -> None:
        cause = self._bundles.pop(told.number, None)
        if cause is not None:
            self._keep(cause, told, body)

    def worded(self, report: Report) -> Report:
        """With what is done to the workload beside what mends it, so that `why` tells it."""
        done = _DONE.get(self._how)
        if done is None:
            return report
        return replace(report, mend=f"{report.mend} {done} (spec.containment).".lstrip())

    def _to_be_kept(self, before: State, after: State) -> Violation | None:
        """The tamper that this step found, where it is worth a bundle: the first of many says what the others say."""
        latest = after.causes[-1] if after.causes and after.causes[-1:] != before.causes[-1:] else None
        if latest is None or not latest.tamper or class_of(latest) is None or self._rules.forensics != "tamper":
            return None
        now = self._clock().boot
        if not self._settings.keep or now - self._latest_bundle < self._settings.apart:
            return None
        self._latest_bundle = now
        return latest

    def _send(self, cause: Violation | None) -> None:
        self._number += 1
        self._ordered_at = self._clock().boot
        size = 0
        if cause is not None:
            self._bundles, size = {self._number: cause}, self._settings.most_bytes
        self._order(Contain(self._number, self._how, size, self._settings.within, self._before))

    def _remember(self, how: Containment) -> None:
        """Before it is ordered. A full disk does not keep anybody running."""
        if self._instance is None:
            return
        new = self._kept.with_suffix(".new")
        try:
            new.write_text(json.dumps(plain(Kept(self._instance, how))))
            new.chmod(0o600)
            new.replace(self._kept)
        except OSError as error:
            self._telling.containment_forgotten(error.strerror or "")
