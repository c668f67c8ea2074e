"""`proofbeat demo`, put together: set the scene, play the acts, judge by the load's records, leave nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from proofbeat import envoy
from proofbeat.demo import layout as layouts
from proofbeat.demo.acts import ACTS, identity
from proofbeat.demo.closing import Act, Play
from proofbeat.demo.layout import Layout, Terms
from proofbeat.demo.report import report
from proofbeat.demo.scene import Scene
from proofbeat.demo.telling import Telling
from proofbeat.ephemeral import folder


async def play(*, as_json: bool, keep: bool, acts: tuple[Play, ...] = ACTS, terms: Terms | None = None) -> bool:
    """The whole demo. True when every act came out as it must and nothing leaked."""
    with folder.passing("demo") as here, Telling(quiet_stdout=as_json) as telling:
        return await _play(Layout.make(here, terms), telling, acts, as_json=as_json, keep=keep)


async def _play(layout: Layout, telling: Telling, acts: tuple[Play, ...], *, as_json: bool, keep: bool) -> bool:
    version = envoy.version(envoy.binary())
    telling.title("Proofbeat: a mesh identity that lives only while its workload stays what it was attested to be.")
    telling.say(f"two services, web and db, behind two real Envoys {version}; trust domain of this run only")
    for line in _under(layout):
        telling.say(line)
    done: list[Act] = []
    async with asyncio.TaskGroup() as tasks:
        scene = Scene(layout, tasks)
        try:
            await scene.set_up()
            telling.say("both services are measured for their reference values; the authority has a throw-away CA")
            telling.watch(scene, layouts.flows(layout))
            for act in acts:
                telling.title((act.__doc__ or "").splitlines()[0])
                done.append(await act(scene, telling.say))
                telling.verdict(done[-1])
                if act is identity and not done[-1].ok:
                    break  # nothing else can be shown then
            if keep:
                await _stay(scene, telling)
        finally:
            await scene.end()
    telling.table(done, scene.ledger)
    if as_json:
        print(json.dumps(report(scene, done, version), indent=1))
    return len(done) == len(acts) and all(act.ok for act in done) and not scene.ledger.leaked()


def _under(layout: Layout) -> Iterator[str]:
    """What else rules, and whom the services run as for that."""
    floor = layout.terms.floor
    if floor is None:
        return
    yield f"under the policy {floor.name} and the demo's own: of each value the stricter one holds"
    users = [(side.name, side.user.uid) for side in layout.sides if side.user is not None]
    apart = ", ".join(f"{name} as {uid}" for name, uid in users)
    yield f"the services run as users of their own: {apart}" if users else "the services run as your own user"


async def _stay(scene: Scene, telling: Telling) -> None:
    """Everything keeps running until Ctrl-C."""
    layout = scene.layout
    telling.title("It all keeps running until Ctrl-C. To look:")
    telling.say(f"proofbeat status --admin {layout.authority_admin}")
    telling.say(f"curl http://{layout.db.address}:{layouts.OUT_HTTP}/        # db calls web through both Envoys")
    telling.say(f"echo changed >> {layout.web.page}        # and call again")
    telling.say(f"curl --unix-socket {layout.web.admin} http://envoy/certs")
    telling.say(f"curl --unix-socket {layout.web.metrics} http://sidecar/metrics")
    telling.say(f"curl --unix-socket {layout.authority_metrics} http://authority/metrics")
    telling.say(f"tail -f {layout.folder}/*.log")
    await asyncio.Event().wait()
