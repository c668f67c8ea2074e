"""What happens every day is no finding where policy says what it is; what an attacker makes of that is one."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attestation import manifest, processes
from attestation.channel import Observed, Scope
from attestation.facts import ExecutionFact, Fact, FileFact
from attestation.layers import Layer
from policies.appraise.appraise import appraise
from policies.appraise.violation import undecided, violates
from policies.model.classes import unread
from policies.model.governing import Governing
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceSpec, ReferenceValues
from tests.system.measurer.conftest import needs_root
from tests.system.measurer.stage import Sidecar, Workload
from tests.system.measurer.volume import Volume
from tests.unit.policies.world import claimed, governing

pytestmark = needs_root
CONTENT = "listen = 8080\n"
OTHER = "listen = 9090\n"
MAIN = "def answer():\n    return 'ours'\n"
FOREIGN = "def answer():\n    return 'theirs'\n"
TRUE = Path("/bin/true")


def digest(content: bytes | str) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()


@dataclass
class Home:
    """A service's folder: code, a configuration, a projected volume, and places of its own."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("code", "conf", "cache", "log"):
            (self.folder / name).mkdir()
        self.code, self.conf, self.cache, self.log = (self.folder / name for name in ("code", "conf", "cache", "log"))
        self.main, self.settings = self.code / "main.py", self.conf / "settings.ini"
        self.main.write_text(MAIN)
        self.settings.write_text(CONTENT)
        (self.log / "today").write_text("started\n")
        self.volume = Volume(self.folder / "volume")
        self.volume.write(config=CONTENT, token="first")

    def policy(self, **files: Any) -> AttestationPolicy:
        classes = {
            "configuration": [f"{self.conf}/**"],
            "projected": [f"{self.volume.folder}/**"],
            "caches": [f"{self.cache}/**", f"{self.code}/__pycache__/*"],
            "logs": [f"{self.log}/**"],
            "volatile": ["*.hprof", *(f"{self.conf}/{each}" for each in (".*.swp", "*~", "4913"))],
        }
        spec = {"files": {"include": [str(self.folder)], **classes, **files}}
        return AttestationPolicy(metadata=Metadata(name="web"), spec=PolicySpec.model_validate(spec))

    def references(self, executables: dict[str, list[str]]) -> ReferenceValues:
        """What it is now, or may be, and a program that would be allowed to run from the cache, were it code."""
        settings = [digest(CONTENT), digest(OTHER)]
        files = {self.main: [digest(MAIN)], self.settings: settings, self.volume.folder / "config": settings}
        spec = {
            "files": {str(path): {"digests": digests} for path, digests in files.items()},
            "executables": {**executables, str(self.cache / "true"): [digest(TRUE.read_bytes())]},
        }
        return ReferenceValues(metadata=Metadata(name="web"), spec=ReferenceSpec.model_validate(spec))


class Judged:
    """The workload under a real measurer, judged by the sidecar's checks and by the verifier's."""

    def __init__(self, sidecar: Sidecar, policy: AttestationPolicy, home: Home) -> None:
        self._sidecar, self._home, self._policy = sidecar, home, policy
        self._bodies: dict[Layer, bytes] = {}
        sidecar.settle()
        self._keep(sidecar.inbox)
        self.kinds = tuple(processes.unpack(self._bodies[Layer.PROCESSES]))
        ran = {path: [each] for kind in self.kinds for path, each in _files(kind)}
        self.references = home.references(ran)

    @property
    def governing(self) -> Governing:
        return governing(self._policy, self.references)

    def told(self) -> list[tuple[str, str]]:
        """Kind and subject of every violation that the facts so far are."""
        facts: list[Fact] = [*self._sidecar.seen(FileFact), *self._sidecar.seen(ExecutionFact)]
        found = (violates(each, self._policy, self.references) for each in facts)
        return [(each.kind, each.subject) for each in found if each is not None]

    def undecided(self) -> bool:
        """Whether any fact so far asks for a round."""
        return any(undecided(each, self._policy) for each in self._sidecar.seen(FileFact))

    def until_told(self, kind: str, subject: Path) -> None:
        """An event, and what the sidecar makes of it."""

        def is_it(fact: Fact) -> bool:
            found = violates(fact, self._policy, self.references)
            return found is not None and (found.kind, found.subject) == (kind, str(subject))

        if kind.startswith("execution"):
            self._sidecar.expect(ExecutionFact, is_it)
        else:
            self._sidecar.expect(FileFact, is_it)

    def appraised(self) -> list[tuple[str, str]]:
        """Kind and subject of all that the verifier finds now."""
        before = len(self._sidecar.inbox)
        self._sidecar.files()
        self._keep(self._sidecar.inbox[before:])
        claims, bodies = claimed(tuple(manifest.unpack(self._bodies[Layer.FILES])), self.kinds)
        return [(each.kind, each.subject) for each in appraise(claims, bodies, self.governing).reasons]

    @property
    def paths(self) -> list[str]:
        """All that is in the latest measurement."""
        return [each.path for each in manifest.unpack(self._bodies[Layer.FILES])]

    def _keep(self, messages: Sequence[tuple[Any, bytes | None]]) -> None:
        for message, body in messages:
            if isinstance(message, Observed) and body is not None:
                self._bodies[message.observation.layer] = body


def _files(kind: processes.ProcessKind) -> list[tuple[str, str]]:
    return [(kind.executable, kind.digest), *([(kind.loader, kind.loader_digest)] if kind.loader else [])]


@pytest.fixture
def home(tree: Path) -> Home:
    shutil.rmtree(tree)
    tree.mkdir(0o755)
    return Home(tree)


def scope(workload: Workload, policy: AttestationPolicy) -> Scope:
    return Scope(workload.pid, policy.spec.files.include, unread(policy.spec.files))


@pytest.fixture
def judged(workload: Workload, home: Home) -> Iterator[Judged]:
    policy = home.policy()
    with Sidecar(scope(workload, policy)) as sidecar:
        judged = Judged(sidecar, policy, home)
        assert judged.appraised() == []
        yield judged


# --- what happens every day ---


def a_volume_is_swapped(home: Home, workload: Workload) -> None:
    home.volume.write(config=OTHER, token="first")
    home.volume.write(config=CONTENT, token="first")


def a_token_is_rotated(home: Home, workload: Workload) -> None:
    for number in range(3):
        home.volume.write(config=CONTENT, token=f"token {number}")


def logs_are_rotated(home: Home, workload: Workload) -> None:
    today = home.log / "today"
    workload.do(f"log = open('{today}', 'a'); log.write('line'); log.flush()")
    today.rename(home.log / "yesterday")
    workload.do(f"log.write('late'); log.close(); log = open('{today}', 'w'); log.write('new'); log.flush()")
    subprocess.run(["gzip", home.log / "yesterday"], check=True)
    shutil.copy(today, home.log / "copied")
    workload.do(f"os.truncate('{today}', 0)")


def a_module_is_compiled(home: Home, workload: Workload) -> None:
    workload.do(f"sys.dont_write_bytecode = False; sys.path.insert(0, '{home.code}'); import main; main.answer()")
    assert list((home.code / "__pycache__").iterdir()) != []


def the_heap_is_dumped(home: Home, workload: Workload) -> None:
    dump = home.code / f"java_pid{workload.pid}.hprof"
    workload.do(f"dump = open('{dump}', 'wb'); dump.write(b'x' * 3_000_000); dump.close()")


def an_editor_is_open_beside_code(home: Home, workload: Workload) -> None:
    swap, probe = home.conf / ".settings.ini.swp", home.conf / "4913"
    swap.write_bytes(b"b0VIM 9.0")
    probe.touch()
    probe.unlink()
    shutil.copy(home.settings, home.conf / "settings.ini~")
    swap.unlink()


def a_folder_of_the_cache_fills(home: Home, workload: Workload) -> None:
    workload.do(f"os.makedirs('{home.cache}/a/b')")
    for number in range(50):
        workload.do(f"open('{home.cache}/a/b/{number}', 'w').write('{number}')")


@pytest.mark.parametrize(
    "happens",
    [
        a_volume_is_swapped,
        a_token_is_rotated,
        logs_are_rotated,
        a_module_is_compiled,
        the_heap_is_dumped,
        an_editor_is_open_beside_code,
        a_folder_of_the_cache_fills,
    ],
    ids=lambda happens: happens.__name__,
)
def test_what_happens_every_day_is_no_finding(happens: Any, judged: Judged, home: Home, workload: Workload) -> None:
    happens(home, workload)
    assert judged.appraised() == []
    assert judged.told() == []


def test_a_folder_of_which_nothing_is_read_is_not_even_entered(judged: Judged, home: Home, workload: Workload) -> None:
    a_folder_of_the_cache_fills(home, workload)
    assert judged.appraised() == []
    assert str(home.cache) in judged.paths
    assert [path for path in judged.paths if path.startswith(f"{home.cache}/")] == []


def test_a_volume_that_is_swapped_all_the_time_is_no_finding_at_any_moment(judged: Judged, home: Home) -> None:
    over = threading.Event()

    def swap() -> None:
        for content in itertools.cycle([CONTENT, OTHER]):
            if over.is_set():
                return
            home.volume.write(config=content, token=content)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        assert [judged.appraised() for _ in range(400)] == [[]] * 400
    finally:
        over.set()
        swapping.join()
    assert judged.told() == []
    assert judged.undecided()


# --- what an attacker makes of it ---


def test_a_program_that_is_referenced_and_runs_from_the_cache_is_tamper(
    judged: Judged, home: Home, workload: Workload
) -> None:
    program = home.cache / "true"
    shutil.copy(TRUE, program)
    workload.do(f"subprocess.run(['{program}'])")
    judged.until_told("execution-from-data", program)


def test_a_referenced_program_that_a_hard_link_in_the_cache_names_is_tamper(
    judged: Judged, home: Home, workload: Workload
) -> None:
    shutil.copy(TRUE, home.folder / "outside")
    link = home.cache / "true"
    link.hardlink_to(home.folder / "outside")
    workload.do(f"subprocess.run(['{link}'])")
    judged.until_told("execution-from-data", link)


def test_a_script_that_is_changed_once_it_has_begun_is_tamper_from_its_beginning(
    judged: Judged, home: Home, workload: Workload
) -> None:
    """What an interpreter reads of it is not what was read when it was executed."""
    script = home.cache / "true"
    script.write_text("#!/bin/sh\nwhile [ ! -e $0.go ]; do sleep 0.01; done\n")
    script.chmod(0o755)
    workload.do(f"script = subprocess.Popen(['{script}'])")
    judged.until_told("execution-from-data", script)
    (home.cache / "true.go").touch()
    workload.do("script.wait()")


def test_configuration_with_a_content_that_nobody_referenced_is_told(
    judged: Judged, home: Home, workload: Workload
) -> None:
    workload.do(f"open('{home.settings}', 'w').write({OTHER!r})")
    assert judged.appraised() == []
    workload.do(f"open('{home.settings}', 'w').write('listen = 1')")
    judged.until_told("file-modified", home.settings)
    assert judged.appraised() == [("file-modified", str(home.settings))]


def test_code_that_is_written_through_a_link_in_the_cache_is_told(
    judged: Judged, home: Home, workload: Workload
) -> None:
    workload.do(f"os.symlink('{home.code}', '{home.cache}/way'); open('{home.cache}/way/main.py', 'w').write('x')")
    judged.until_told("file-modified", home.main)


def test_a_link_in_code_that_leads_to_the_cache_is_told(judged: Judged, home: Home, workload: Workload) -> None:
    workload.do(f"open('{home.cache}/main.py', 'w').write({FOREIGN!r})")
    workload.do(f"os.symlink('../cache/main.py', '{home.code}/other.py')")
    judged.until_told("file-unreferenced", home.code / "other.py")
    workload.do(f"os.rename('{home.code}/other.py', '{home.main}')")
    judged.until_told("file-modified", home.main)


def test_what_is_renamed_from_the_cache_into_code_is_told(judged: Judged, home: Home, workload: Workload) -> None:
    workload.do(f"os.mkdir('{home.cache}/lib'); open('{home.cache}/lib/x.py', 'w').write({FOREIGN!r})")
    workload.do(f"open('{home.cache}/y.py', 'w').write({FOREIGN!r})")
    workload.do(f"os.rename('{home.cache}/lib', '{home.code}/lib')")
    judged.until_told("file-unreferenced", home.code / "lib" / "x.py")
    workload.do(f"os.rename('{home.cache}/y.py', '{home.main}')")
    judged.until_told("file-modified", home.main)


def test_the_caches_folder_renamed_is_code_with_all_that_is_in_it(
    judged: Judged, home: Home, workload: Workload
) -> None:
    workload.do(f"open('{home.cache}/x.py', 'w').write({FOREIGN!r}); os.rename('{home.cache}', '{home.folder}/lib')")
    judged.until_told("file-unreferenced", home.folder / "lib" / "x.py")


def test_a_link_in_place_of_the_caches_folder_is_told(judged: Judged, home: Home, workload: Workload) -> None:
    workload.do(f"os.rename('{home.cache}', '{home.log}/cache'); os.symlink('log', '{home.cache}')")
    judged.until_told("file-unreferenced", home.cache)


def test_a_hard_link_in_code_to_what_lies_in_the_cache_is_told(judged: Judged, home: Home, workload: Workload) -> None:
    workload.do(f"open('{home.cache}/x.py', 'w').write({FOREIGN!r}); os.link('{home.cache}/x.py', '{home.code}/x.py')")
    judged.until_told("file-unreferenced", home.code / "x.py")


def test_code_that_is_written_by_another_name_in_the_cache_is_found_when_it_is_measured_next(
    judged: Judged, home: Home, workload: Workload
) -> None:
    """The kernel tells of the folder through which it is written, and nobody watches that one."""
    workload.do(f"os.link('{home.main}', '{home.cache}/main.py'); open('{home.cache}/main.py', 'w').write('x')")
    assert judged.appraised() == [("file-modified", str(home.main))]


def test_a_volume_that_is_led_to_another_content_is_found(judged: Judged, home: Home, workload: Workload) -> None:
    config = home.volume.folder / "config"
    home.volume.write(config="listen = 1", token="first")
    assert judged.appraised() == [("file-modified", str(config))]
    assert judged.undecided()
    home.volume.write(config=OTHER, token="first")
    assert judged.appraised() == []
    workload.do(f"os.mkdir('{home.cache}/volume'); open('{home.cache}/volume/config', 'w').write({CONTENT!r})")
    home.volume.lead("../cache/volume")
    assert judged.appraised() == [("file-missing", str(config))]


def test_a_file_in_the_place_of_a_stable_name_is_told(judged: Judged, home: Home, workload: Workload) -> None:
    config = home.volume.folder / "config"
    workload.do(f"open('{config}.new', 'w').write('listen = 1'); os.rename('{config}.new', '{config}')")
    judged.until_told("file-modified", config)


def _run_other_byte_code(home: Home, workload: Workload) -> Path:
    """A cached file that Python takes for the module's: the head of the honest one, and what it should not hold."""
    a_module_is_compiled(home, workload)
    (compiled,) = (home.code / "__pycache__").iterdir()
    workload.do(f"import marshal; theirs = marshal.dumps(compile({FOREIGN!r}, 'main.py', 'exec'))")
    workload.do(f"ours = open('{compiled}', 'rb').read(); open('{compiled}', 'wb').write(ours[:16] + theirs)")
    workload.do("del sys.modules['main']; import main; assert main.answer() == 'theirs'")
    return compiled


def test_byte_code_that_python_runs_instead_of_its_source_is_seen_where_it_is_code(
    home: Home, workload: Workload
) -> None:
    policy = home.policy(caches=[f"{home.cache}/**"])
    with Sidecar(scope(workload, policy)) as sidecar:
        judged = Judged(sidecar, policy, home)
        compiled = _run_other_byte_code(home, workload)
        judged.until_told("file-unreferenced", compiled)


def test_byte_code_that_policy_says_is_a_cache_runs_unseen(judged: Judged, home: Home, workload: Workload) -> None:
    """docs/hardening.md says what to do about it."""
    _run_other_byte_code(home, workload)
    assert judged.appraised() == []
    assert judged.told() == []


def test_what_a_floor_refuses_to_exempt_is_measured(home: Home, workload: Workload) -> None:
    policy = home.policy(within=[{"caches": [f"{home.cache}/pages/**"]}])
    with Sidecar(scope(workload, policy)) as sidecar:
        judged = Judged(sidecar, policy, home)
        workload.do(f"os.mkdir('{home.cache}/pages'); open('{home.cache}/pages/x', 'w').write('x')")
        assert judged.appraised() == []
        workload.do(f"open('{home.cache}/x.py', 'w').write('x')")
        judged.until_told("file-unreferenced", home.cache / "x.py")
