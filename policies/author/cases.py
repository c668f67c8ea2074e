"""PolicyTest: what should come of a workload that is so and so, written down beside the policies."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyAddress, model_validator

from attestation.coverage import Cutting, Grade, Guarantee, Profile
from attestation.detectors.alerts import MOST_NAME, MOST_RULE, MOST_TAGS, MOST_TEXT, Detector, Priority
from attestation.digests import well_formed
from attestation.errors import InvalidConfiguration
from attestation.facts import CollectorState, FileChange, Opened, ProcessAspect
from attestation.layers import Layer
from attestation.proxy import Delivered, Denial, Known
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import ViolationClass
from policies.author.remarks import Place
from policies.model import dialect
from policies.model.dialect import Duration, Strict
from policies.model.metadata import Document
from policies.model.references import FileMode, Instant

WORDS = ("referenced", "changed", "unreadable", "absent")


def _content(text: str) -> str:
    if text in WORDS or well_formed(text.removeprefix("sha256:")):
        return text.removeprefix("sha256:")
    raise ValueError(f"a content is {', '.join(WORDS)}, or a digest as sha256sum prints it")


Content = Annotated[str, AfterValidator(_content)]
"""`referenced`: as reference values have it. `changed`: as none has it. `unreadable`, `absent`, or a digest."""


def _alone(name: str) -> BeforeValidator:
    """Text alone stands for a map with this one key."""
    return BeforeValidator(lambda value: {name: value} if isinstance(value, str) else value)


class GivenFile(Strict):
    """A path as it is measured; may be written as its content alone. What is not said is as it is referenced.

    content: what is in it, or what it links to. kind: what it is. mode: permission bits, "0644" where nothing says
    otherwise. uid, gid: its owner, 0 where nothing says otherwise.
    """

    content: Content = "referenced"
    kind: Literal["file", "link", "folder", "other"] = "file"
    mode: FileMode | None = None
    uid: int | None = None
    gid: int | None = None


class GivenProcess(Strict):
    """A kind of running process; may be written as its executable alone. It replaces what runs the same executable.

    executable: path of what it runs. content: of that. loader: path of the ELF interpreter, empty where it is static.
    loader_content: of that. uid, gid: effective ones. capabilities: hexadecimal, as CapEff. no_new_privileges: whether
    it can gain none. seccomp: 0 off, 1 strict, 2 filter. deleted: no name leads to the executable.
    """

    executable: str
    content: Content = "referenced"
    loader: str = ""
    loader_content: Content = "referenced"
    uid: int = 1000
    gid: int = 1000
    capabilities: str = Field(default="0", pattern=r"^[0-9a-f]{1,16}$")
    no_new_privileges: bool = True
    seccomp: Literal[0, 1, 2] = 2
    deleted: bool = False


class GivenProxy(Strict):
    """The Envoy that holds the key, as well as can be where nothing is said. absent: nobody holds it.

    content: of its program. traced: somebody is attached to it. dumpable: the kernel gives its memory out.
    drains_at_once: started with `--drain-time-s 0`. delivered: what it gets from us. denial: whether it has what
    denies. filters: those of ours that it has accepted. resumption_off: no TLS session is resumed.
    """

    absent: bool = False
    content: Content = "referenced"
    traced: Known = Known.NO
    dumpable: Known = Known.NO
    drains_at_once: Known = Known.YES
    delivered: Delivered = Delivered.EVERYTHING
    denial: Denial = Denial.IN_FORCE
    filters: tuple[str, ...] = ("deny",)
    resumption_off: Known = Known.YES


class GivenCoverage(Strict):
    """The watchers, as well as can be where nothing is said.

    grade: what holds when the sidecar dies. cutting: the strongest way to end what is open. isolation: the guarantees
    that hold. profile: how much of what happens the kernel tells. gate: whether one is in force before executions.
    fence: whether one can refuse connections. notified: whether a seccomp filter asks before calls. silent: detectors
    that are not heard, of those that policy names.
    dead: layers whose collector does not run. absent: layers that nothing measures.
    """

    grade: Grade = Grade.CLOSED_BY_GUARDIAN
    cutting: Cutting = Cutting.DESTROY
    isolation: tuple[Guarantee, ...] = tuple(Guarantee)
    profile: Profile = Profile.FULL
    gate: bool = True
    fence: bool = True
    notified: bool = True
    silent: tuple[Detector, ...] = ()
    dead: tuple[Layer, ...] = ()
    absent: tuple[Layer, ...] = ()


class GivenAge(Strict):
    """age: since the layer was last measured. full: since it was last read in full, the same where nothing is said."""

    age: Duration = 0.0
    full: Duration | None = None


class GivenClaims(Strict):
    """What a round's evidence shows.

    base: what is there before all that follows: everything as it is `referenced`, or `nothing`. version: of the
    reference values, where several are good; the first where nothing is said. files: path -> what it is. processes:
    kinds of running process. proxy: the Envoy that holds the key; where nothing is said there is one if policy asks
    for the layer. coverage: the watchers. ages: of layers, 0s where nothing is said.
    """

    base: Literal["referenced", "nothing"] = "referenced"
    version: str | None = None
    files: dict[str, Annotated[GivenFile, _alone("content")]] = Field(default_factory=dict)
    processes: tuple[Annotated[GivenProcess, _alone("executable")], ...] = ()
    proxy: GivenProxy | None = None
    coverage: GivenCoverage = GivenCoverage()
    ages: dict[Layer, GivenAge] = Field(default_factory=dict)


class FileHappened(Strict):
    """path: which file. change: what became of it. content, mode, uid, gid: what it is now, as GivenFile has it."""

    path: str
    change: FileChange = FileChange.MODIFIED
    content: Content = "changed"
    mode: FileMode | None = None
    uid: int | None = None
    gid: int | None = None


class Executed(Strict):
    """path: what was executed. content: of it; `unreadable` where nobody could look. deleted: no name leads to it.

    refused: a gate refused it before it ran. temporary: why nothing was built there: `tmpfs`, or the folder that is
    open to everybody. gains: what its caller gets by it, `user 0` for one.
    """

    path: str
    content: Content = "referenced"
    deleted: bool = False
    refused: bool = False
    temporary: str = ""
    gains: str = ""


class ScriptRan(Strict):
    """path: what an interpreter ran. content: of it, by files or executables as referenced. deleted: it has no name."""

    path: str
    content: Content = "referenced"
    deleted: bool = False


class Preloaded(Strict):
    """source: who names it, `LD_PRELOAD` for one. entry: what is named. path: where that leads to, as it is named where
    nothing is said. content: of a library; `unreadable` of a folder."""

    source: str = "LD_PRELOAD"
    entry: str
    path: str | None = None
    content: Content = "unreadable"


class ProcessHappened(Strict):
    """executable: whose process. aspect: what of it changed. before, after: as the measurer writes them."""

    executable: str
    aspect: ProcessAspect
    before: str
    after: str


class StdioHappened(Strict):
    """executable: of the process that has a socket as its stdio. opened: which end opened the connection."""

    executable: str
    opened: Opened = Opened.HERE


class Connected(Strict):
    """executable: of the process that connected. host: the IP address. port: of it. protocol: TCP where not said.

    refused: a fence refused it before its first packet.
    """

    executable: str
    host: IPvAnyAddress
    port: int = Field(ge=1, le=65_535)
    protocol: Literal["tcp", "udp"] = "tcp"
    refused: bool = False


class CollectorHappened(Strict):
    """name: of the collector, `files-fanotify`, which begins with its layer. state: what it is now."""

    name: str
    state: CollectorState


class Alerted(Strict):
    """detector: whose alert it is. rule: by which rule of Falco's, or which policy of Tetragon's. priority: how grave
    it is, which Falco states of each and Tetragon of none. tags: that it has. text: what it says.

    executable: of the process that it is about. named: it is about this workload, by what it names; else it names
    nobody by whom that could be told.
    """

    detector: Detector
    rule: str = Field(min_length=1, max_length=MOST_RULE)
    priority: Priority | None = None
    tags: tuple[Annotated[str, Field(max_length=MOST_NAME)], ...] = Field(default=(), max_length=MOST_TAGS)
    text: str = Field(default="", max_length=MOST_TEXT)
    executable: str = Field(default="", max_length=MOST_NAME)
    named: bool = True

    @model_validator(mode="after")
    def _has_priorities(self) -> Self:
        if (self.priority is not None) is not (self.detector is Detector.FALCO):
            raise ValueError("each alert of Falco's states a priority, and none of Tetragon's does")
        return self


class GivenFact(Strict):
    """One thing that is seen to happen, by the measurer or a detector: exactly one of these.

    file: a path changed. execution: something was executed. script: an interpreter ran a file. preload: a library, or a
    folder of them, comes before a program's own. process: a process changed what it may do. stdio: a process has a
    socket as standard input, output or error. egress: a process connected to somewhere. alert: a detector of somebody
    else's raised one. collector: a collector failed, or is back. proxy: the Envoy that holds the key is another, or
    stands otherwise.
    """

    file: FileHappened | None = None
    execution: Executed | None = None
    script: ScriptRan | None = None
    preload: Preloaded | None = None
    process: ProcessHappened | None = None
    stdio: StdioHappened | None = None
    egress: Connected | None = None
    alert: Alerted | None = None
    collector: CollectorHappened | None = None
    proxy: GivenProxy | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a fact is exactly one of {', '.join(type(self).model_fields)}")
        return self


NOTHING = "nothing"
"""The signal of a fact that violates nothing."""


def _signal(text: str) -> str:
    known = [*map(str, Signal), NOTHING]
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1)
        raise ValueError(f"there is no signal {text!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    return text


class Reason(Strict):
    """A reason that is expected; may be written as its signal alone.

    signal: its stable word. subject: path or other subject, any where nothing is said. class: drift or tamper, either
    where nothing is said.
    """

    signal: Annotated[str, AfterValidator(_signal)]
    subject: str | None = None
    violation_class: ViolationClass | None = Field(default=None, alias="class")


def _tier(text: str) -> str:
    labels = [each.label for each in Tier]
    if text not in labels:
        raise ValueError(f"a tier is {', '.join(labels)}")
    return text


TierWord = Annotated[str, AfterValidator(_tier)]


class Expected(Strict):
    """What must come of it; what is not said may be anything.

    tier: of the verdict on claims. opens: whether traffic may flow by it, which in observe and audit it always may.
    reasons: these, each found at least once, and no others. violates: what a fact is, or `nothing`.
    """

    tier: TierWord | None = None
    opens: bool | None = None
    reasons: tuple[Annotated[Reason, _alone("signal")], ...] | None = None
    violates: Annotated[Reason, _alone("signal")] | None = None


class Case(Strict):
    """name: a sentence that says what is expected. registration: whose workload, `web` or `payments/web`.

    at: the time at which it is judged; where nothing is said nothing has expired. claims: what evidence shows; as it
    is referenced where neither this nor a fact is given. fact: what is seen to happen instead. expect: what must come
    of it.
    """

    name: str = Field(min_length=1, max_length=200)
    registration: str
    at: Instant | None = None
    claims: GivenClaims | None = None
    fact: GivenFact | None = None
    expect: Expected

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.claims is not None and self.fact is not None:
            raise ValueError("a case has claims or a fact, not both")
        of_facts = {"violates"} & self.expect.model_fields_set
        of_claims = {"tier", "opens", "reasons"} & self.expect.model_fields_set
        if not (of_facts if self.fact else of_claims) or (of_claims if self.fact else of_facts):
            raise ValueError("claims are expected a tier, opens or reasons; and a fact what it violates")
        return self


class PolicyTestSpec(Strict):
    """What is tried. policies: files, or folders of *.yaml, from this file's folder on. root_namespace: the
    authority's.

    cases: what should come of what.
    """

    policies: tuple[Path, ...] = Field(min_length=1)
    root_namespace: str = "proofbeat-system"
    cases: tuple[Case, ...] = Field(min_length=1)


class PolicyTest(Document):
    """Cases for `proofbeat policy test`; no authority reads them."""

    kind: Literal["PolicyTest"] = "PolicyTest"
    spec: PolicyTestSpec


@dataclass(frozen=True, slots=True)
class Written:
    """A document of cases. folder: from which its paths lead on. places: of each case."""

    test: PolicyTest
    folder: Path
    places: tuple[Place, ...]


def read(path: Path) -> Iterator[Written]:
    """Every PolicyTest in a file, or in the *.yaml of a folder and of those below it. Raises InvalidConfiguration."""
    files = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
    found = [written for file in files for written in _tests(file, alone=file == path)]
    if not found:
        raise InvalidConfiguration("no PolicyTest is there", where=str(path), mend="docs/policies.md shows one.")
    yield from found


def _tests(file: Path, *, alone: bool) -> Iterator[Written]:
    """alone: it was named itself, so that anything else in it is a mistake; else other kinds are somebody else's."""
    for value, node in dialect.parse(dialect.read_text(file), str(file)):
        kind = value.get("kind") if isinstance(value, dict) else None
        if alone and kind not in (None, "PolicyTest"):
            where = dialect.place(str(file), dialect.mark(node, ("kind",)))
            mend = "Name the file of cases, or a folder; they name the policies that they are for."
            raise InvalidConfiguration(f"{kind} is no PolicyTest", where=where, mend=mend)
        if alone or kind == "PolicyTest":
            test = dialect.validate(value, node, PolicyTest, str(file))
            paths = (("spec", "cases", number) for number in range(len(test.spec.cases)))
            places = (Place.read(dialect.place(str(file), dialect.mark(node, path))) for path in paths)
            yield Written(test, file.parent, tuple(places))
