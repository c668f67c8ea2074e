"""`proofbeat policy learn`, put together: watched, merged, judged by its own policy, written and told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from attestation.errors import InvalidInput, Unavailable
from policies.author.learning import outcome
from policies.author.learning.learned import Learned
from policies.author.learning.merging import merged
from policies.author.learning.watched import Watched
from policies.model.metadata import Metadata
from policies.model.registration import RegistrationSpec
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.children import Children
from proofbeat.learning import telling as told
from proofbeat.learning import watch, written
from proofbeat.learning.libraries import Libraries
from proofbeat.learning.watch import EVERY_CALL, LOOKS, Watch
from proofbeat.learning.wishes import Until, Wishes
from proofbeat.study import scope_of, studied
from proofbeat.telling import Telling, counted
from proofbeat.up import program
from proofbeat.up.program import Instance, Program
from proofbeat.up.scope import named

ENDING_SECONDS = 10.0
"""In which a workload ends that was asked to, as a container's runtime waits for it."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One workload, when it is watched no more."""

    watched: Watched
    learned: Learned


async def run(wished: Wishes) -> bool:
    """False where it was to go on until it has converged, and has not. Raises InvalidInput, Unavailable."""
    _writable(wished)
    earlier = [written.read(path) for path in wished.merge]
    seen = await _watched(wished, Telling(sys.stderr)) if wished.pids or wished.command else []
    now = [each.learned for each in seen]
    learned = merged([*now, *earlier])
    ruling = outcome.policy(wished.name, learned, wished.place.mode, notified=bool(wished.place.listener))
    values = outcome.references(wished.name, learned)
    findings = sorted({each for one in seen for each in one.watched.findings(ruling, values)})
    files = written.write_all(wished.name, learned, values, wished.place)
    before = merged(earlier) if earlier and now else None
    _tell(told.Outcome(wished.name, learned, ruling, values, before, findings, files), as_json=wished.place.as_json)
    return not wished.until.converged or all(run.converged for each in now for run in each.runs)


def _writable(wished: Wishes) -> None:
    """Raises InvalidInput for a name, or an identity, that no document can have."""
    try:
        Metadata(name=wished.name)
        if wished.place.spiffe_id:
            RegistrationSpec(spiffe_id=wished.place.spiffe_id, references=wished.name)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise InvalidInput(
            f"{fault['input']!r} cannot be written: {fault['msg']}", where="NAME, --spiffe-id"
        ) from error


def _tell(found: told.Outcome, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told.document(found), indent=1))
    else:
        print("\n".join(told.lines(found)))


async def _watched(wished: Wishes, telling: Telling) -> list[_Seen]:
    """What was seen of each. Whoever ends it sooner (Ctrl-C) wants what was seen until then."""
    include = named(wished.include, Path.home()) if wished.command else tuple(map(str, wished.include))
    with folder.passing("learn") as here:
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as held:
            children = Children(here, tasks)
            held.push_async_callback(children.end)
            if wished.command:
                watches = [await _start(wished, include, children, held, telling)]
            else:
                watches = await _attach(wished, include, held, telling)
            return [_Seen(each.watched, each.learned()) for each in watches]


async def _attach(wished: Wishes, include: tuple[str, ...], held: AsyncExitStack, telling: Telling) -> list[Watch]:
    watches = []
    for pid in wished.pids:
        scope = scope_of(pid, include, wished.volatile, cgroup=wished.cgroup, memory=LOOKS, calls=EVERY_CALL)
        study = await held.enter_async_context(studied(scope))
        watches.append(watch.begun(study, f"pid {pid}", include, wished.volatile, _libraries(pid, held)))
    for each in watches:
        await each.look()
    await _until(watches, wished.until, telling)
    for each in watches:
        await each.measure()
    return watches


async def _start(
    wished: Wishes, include: tuple[str, ...], children: Children, held: AsyncExitStack, telling: Telling
) -> Watch:
    """The process that will execute it is known to the kernel's programs before it does."""
    wanted = Program(wished.command, wished.cwd, 0.0, None)
    instance, go = await program.hold(wanted, children, quiet_stdout=wished.place.as_json)
    scope = scope_of(instance.pid, include, wished.volatile, memory=LOOKS, calls=EVERY_CALL)
    study = await held.enter_async_context(studied(scope))
    await study.measure()
    of, libraries = Path(wished.command[0]).name, _libraries(instance.pid, held)
    watching = watch.begun(study, of, include, wished.volatile, libraries, fresh=True)
    go()
    await _until([watching], wished.until, telling)
    await watching.measure()
    if not study.over.is_set():
        telling.say("it is asked to end, so that it is seen how it does")
        await watching.ended(lambda: _end(instance))
    return watching


def _libraries(pid: int, held: AsyncExitStack) -> Libraries:
    try:
        libraries = Libraries(pid)
    except OSError as error:
        raise Unavailable(f"its root folder cannot be opened: {error.strerror}", where=f"pid {pid}") from error
    held.callback(libraries.close)
    return libraries


async def _until(watches: Sequence[Watch], until: Until, telling: Telling) -> None:
    progress = _Progress(watches, telling)
    progress.begin(until)
    try:
        await watch.learn(watches, until, progress.told)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        telling.say("ended by you: what was seen until now is written")


async def _end(instance: Instance) -> None:
    """Its first process is asked, and after some seconds all that is left is ended."""
    if not instance.gone:
        with suppress(ProcessLookupError):
            os.kill(instance.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(ENDING_SECONDS):
            await instance.reaper.process.wait()
    await instance.end()


class _Progress:
    """Says what is known by now, whenever that is more than before."""

    def __init__(self, watches: Sequence[Watch], telling: Telling) -> None:
        self._watches, self._say = watches, telling.say
        self._before: list[tuple[int, int, int]] = []

    def begin(self, until: Until) -> None:
        whom = ", ".join(each.study.where for each in self._watches)
        how = "until nothing new comes, at most" if until.converged else "for"
        self._say(f"watching {whom} {how} {until.seconds:g} s; Ctrl-C ends it sooner")

    def told(self) -> None:
        now = [each.watched.size for each in self._watches]
        if now == self._before:
            return
        self._before = now
        for each, (calls, executables, mapped) in zip(self._watches, now, strict=True):
            known = ", ".join((counted(calls, "call"), counted(executables, "program"), counted(mapped, "mapped file")))
            left = each.watched.convergence.left(each.now)
            self._say(f"{each.study.where}: {known}; converges in {left:.0f} s, if nothing new comes")
