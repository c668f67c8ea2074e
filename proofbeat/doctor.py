"""`proofbeat doctor`: what this kernel and user permit, found out by a measurer that tries, and what the rest costs."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from attestation.channel import Covered, Fault, Message, Scope
from attestation.coverage import Coverage, Cutting, Mechanism
from attestation.errors import Unavailable
from attestation.plain import plain
from sidecar.measurement import Measurer, spawn

WITHIN_SECONDS = 20.0
_COSTS = {
    Mechanism.INOTIFY: "who wrote a file is not known",
    Mechanism.POLL: "a program that is gone before the next look is not seen",
    Cutting.KILL: "open connections are ended by killing Envoy, not one by one",
    Cutting.CAPPED: "open connections end by killing Envoy where it runs as our user, else by their duration cap",
}
_MEND = "run as root, or give the measurer CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"


async def run(*, as_json: bool) -> bool:
    """True when nothing is missing."""
    if sys.platform != "linux":
        raise Unavailable("Proofbeat measures through the Linux kernel", where=sys.platform, mend="Run it on Linux.")
    coverage = await _coverage()
    if as_json:
        print(json.dumps(plain(coverage), indent=1))
    else:
        _print(coverage)
    return not any(_cost(each.mechanism) for each in coverage.collectors) and not _cost(coverage.cutting)


async def _coverage() -> Coverage:
    """What a measurer of this very process can have."""
    found: asyncio.Future[Coverage] = asyncio.get_running_loop().create_future()

    def heard(message: Message, _: bytes | None) -> None:
        if found.done():
            return
        if isinstance(message, Covered):
            found.set_result(message.coverage)
        elif isinstance(message, Fault):
            found.set_exception(Unavailable(message.what, where=message.where, mend=message.mend))

    measurer = Measurer(heard, lambda reason: None if found.done() else found.set_exception(Unavailable(reason)))
    measurer.start(asyncio.get_running_loop(), spawn())
    try:
        measurer.send(Scope(os.getpid(), ()))
        async with asyncio.timeout(WITHIN_SECONDS):
            return await found
    except TimeoutError as error:
        raise Unavailable(f"the measurer did not answer within {WITHIN_SECONDS:g} s", where="measurer") from error
    finally:
        measurer.stop()


def _cost(means: Mechanism | Cutting) -> str:
    return _COSTS.get(means, "")


def _print(coverage: Coverage) -> None:
    for collector in coverage.collectors:
        late = f"{collector.latency_ms:g} ms late at most on an idle machine"
        _line(f"{collector.name}: {collector.mechanism}, {late}", _cost(collector.mechanism), collector.detail)
    _line(f"open connections: {coverage.cutting}", _cost(coverage.cutting), "")
    print(f"absent here: {', '.join(coverage.absent)} (nothing measures these layers yet)")


def _line(have: str, cost: str, detail: str) -> None:
    print(f"{'lacking' if cost else 'ok':8}{have}{f' ({detail})' if detail else ''}")
    if cost:
        print(f"{'':8}costs: {cost}\n{'':8}mend: {_MEND}")
