"""What rules see of a workload: a summary of fixed size, whatever the workload is like.

Each field says what it means; documents, checks and the reference page take it from here. Everything is always there:
of a layer that is not measured, `measured` is false, what is counted is 0, and a text is empty. What exceeds its size
is not cut: a rule that looks at it cannot be evaluated, and so never affirms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from attestation.calls import Watching
from attestation.capabilities import CAPABILITIES
from attestation.coverage import Cutting, Grade, Guarantee, Mechanism, Profile
from attestation.digests import Digest
from attestation.layers import Layer
from attestation.proxy import Delivered, Denial, Known
from policies.model.cel.types import DIGEST, DURATION, SPIFFE, Most, Words
from policies.model.metadata import MOST_LABELS

MOST_STRING = 1024
"""Characters of any string that a rule sees."""
MOST_KINDS = 64
MOST_FILTERS = 64
MOST_COLLECTORS = 32
MOST_CALLS = 256
WATCHING = (*map(str, Watching), "")

AGES = (1_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 21_600_000, 86_400_000)
"""Milliseconds to which ages are rounded up. An exact one would be another summary every time, which nobody has judged
before, and would tell an attacker when to strike."""
OLDEST = 400 * 86_400_000
"""The age of what is older than the last of AGES, and of what is not measured."""

SECCOMP = ("off", "strict", "filter")
"""By the number in /proc/PID/status."""

_DigestField = Annotated[Digest, DIGEST]
_Age = Annotated[int, DURATION]


@dataclass(frozen=True, slots=True)
class Registration:
    name: Annotated[str, "its name"]
    namespace: Annotated[str, "its namespace"]
    labels: Annotated[Mapping[str, str], Most(MOST_LABELS), "its labels; `has(registration.labels.team)` asks for one"]
    spiffe_id: Annotated[str, SPIFFE, "the identity that it gets"]


@dataclass(frozen=True, slots=True)
class Files:
    measured: Annotated[bool, "whether policy asks for the layer and evidence has it"]
    age: Annotated[_Age, "since it was last measured, rounded up to 1s, 10s, 30s, 1m, 5m, 15m, 1h, 6h, 1d or 400d"]
    full_age: Annotated[_Age, "since it was last read in full, rounded up alike"]
    digest: Annotated[_DigestField, "of the whole layer, as evidence claims it"]
    count: Annotated[int, "regular files in scope"]
    links: Annotated[int, "symbolic links in scope"]
    folders: Annotated[int, "folders in scope"]
    others: Annotated[int, "devices, pipes and sockets in scope"]
    setuid: Annotated[int, "regular files with the setuid or setgid bit"]
    world_writable: Annotated[int, "regular files that everybody may write"]


@dataclass(frozen=True, slots=True)
class Kind:
    """Running processes that are alike in all of this are one kind."""

    executable: Annotated[str, "path of what it runs"]
    digest: Annotated[_DigestField, "of what it runs"]
    loader: Annotated[str, "path of its loader (PT_INTERP), empty where it needs none"]
    loader_digest: Annotated[_DigestField, "of the loader"]
    uid: Annotated[int, "effective user"]
    gid: Annotated[int, "effective group"]
    capabilities: Annotated[
        tuple[str, ...], Words(CAPABILITIES), Most(len(CAPABILITIES)), "effective ones, by name: CAP_SYS_ADMIN"
    ]
    no_new_privileges: Annotated[bool, "whether it has given up gaining any (no_new_privs)"]
    seccomp: Annotated[str, Words(SECCOMP), "its seccomp mode"]
    deleted: Annotated[bool, "whether what it runs has no name any more"]


@dataclass(frozen=True, slots=True)
class Processes:
    measured: Annotated[bool, "whether policy asks for the layer and evidence has it"]
    age: Annotated[_Age, "as `files.age`"]
    full_age: Annotated[_Age, "as `files.fullAge`"]
    digest: Annotated[_DigestField, "of the whole layer, as evidence claims it"]
    root: Annotated[int, "kinds that run as uid 0"]
    privileged: Annotated[int, "kinds with any effective capability"]
    kinds: Annotated[tuple[Kind, ...], Most(MOST_KINDS), "the kinds of process that run"]


@dataclass(frozen=True, slots=True)
class Proxy:
    measured: Annotated[bool, "whether policy asks for the layer and evidence has it"]
    age: Annotated[_Age, "as `files.age`"]
    full_age: Annotated[_Age, "as `files.fullAge`"]
    seated: Annotated[bool, "whether an Envoy holds the key socket"]
    executable: Annotated[_DigestField, "of what it runs; empty where nobody could read it"]
    version: Annotated[str, "under which reference values list its executable, empty where they do not"]
    traced: Annotated[Known, "whether somebody is attached to it"]
    dumpable: Annotated[Known, "whether the kernel gives its memory out"]
    drains_at_once: Annotated[Known, "whether it was started with --drain-time-s 0"]
    delivered: Annotated[str, Words((*map(str, Delivered), "")), "what it gets from the sidecar"]
    denial: Annotated[str, Words((*map(str, Denial), "")), "whether it has what denies"]
    filters: Annotated[tuple[str, ...], Most(MOST_FILTERS), "the filters of ours that it has accepted, by name"]
    resumption_off: Annotated[Known, "whether no TLS session is resumed"]


@dataclass(frozen=True, slots=True)
class Memory:
    measured: Annotated[bool, "whether policy asks for the layer and evidence has it"]
    age: Annotated[_Age, "as `files.age`"]
    full_age: Annotated[_Age, "as `files.fullAge`"]
    digest: Annotated[_DigestField, "of the whole layer, as evidence claims it"]
    files: Annotated[int, "contents of files that are mapped as code"]
    compilers: Annotated[int, "programs that have code of no file"]
    writable: Annotated[int, "of both, those that are writable as well"]
    patched: Annotated[int, "pages of code that are not what their file holds, breakpoints included"]


@dataclass(frozen=True, slots=True)
class Calls:
    """Rates and offences are what no digest has: a sidecar that speaks wire 1.7 says nothing of them, which is 0."""

    measured: Annotated[bool, "whether policy asks for the layer `syscalls` and evidence has it"]
    age: Annotated[_Age, "as `files.age`"]
    full_age: Annotated[_Age, "as `files.fullAge`"]
    digest: Annotated[_DigestField, "of the whole layer, as evidence claims it"]
    watching: Annotated[str, Words(WATCHING), "how they are looked at"]
    made: Annotated[tuple[str, ...], Most(MOST_CALLS), 'names of those that were made: `"execve" in calls.made`']
    rate: Annotated[int, "a second, on average since the measurement before, rounded up to a power of two"]
    peak: Annotated[int, "the same of the busiest second"]
    events: Annotated[int, "that the kernel told of a second, rounded up to a power of two"]
    outside: Annotated[int, "names of those outside of the baseline that were made since watching began"]


@dataclass(frozen=True, slots=True)
class Collector:
    """One that watches a layer."""

    name: Annotated[str, "its name"]
    layer: Annotated[Layer, "the layer that it feeds"]
    mechanism: Annotated[Mechanism, "how it watches"]
    latency: Annotated[int, DURATION, "between act and fact at worst, by its own word, rounded up"]
    running: Annotated[bool, "whether it runs"]
    lost: Annotated[int, "events that it has lost"]


@dataclass(frozen=True, slots=True)
class Coverage:
    grade: Annotated[Grade, "what holds when the sidecar dies"]
    cutting: Annotated[Cutting, "how open connections are ended"]
    profile: Annotated[Profile, "how much of what happens the kernel tells"]
    isolation: Annotated[tuple[Guarantee, ...], Most(len(Guarantee)), "what is guaranteed against the workload"]
    absent: Annotated[tuple[Layer, ...], Most(len(Layer)), "the layers that nothing measures"]
    collectors: Annotated[tuple[Collector, ...], Most(MOST_COLLECTORS), "what watches"]


@dataclass(frozen=True, slots=True)
class Summary:
    """All that rules see."""

    registration: Annotated[Registration, "which workload this is"]
    files: Annotated[Files, "its files"]
    processes: Annotated[Processes, "its processes"]
    proxy: Annotated[Proxy, "the Envoy that holds its key"]
    memory: Annotated[Memory, "what its processes have mapped as code"]
    calls: Annotated[Calls, "the system calls that it makes"]
    coverage: Annotated[Coverage, "how well it is watched"]
