"""Runs to be put together: of few names, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from policies.author.learning.learned import Amount, Learned, Origin, Run
from policies.model.references import FileReference

IDS = ("2026-01-01T00:00:00Z-a", "2026-01-01T00:00:00Z-b", "2026-02-01T00:00:00Z-c")
PATHS = ("/srv/a", "/srv/b", "/srv/c.log", "/etc/a")
CONTENTS = ("1" * 64, "2" * 64)
CALLS = ("read", "write", "openat", "io_uring:openat", "compat")


def run(number: int = 0, **more: object) -> Run:
    said = {"id": IDS[number], "of": "a test", "machine": "x86_64", "seconds": 60.0, "quiet": 31.0, "needed": 30.0}
    return Run.model_validate(said | more)


def origin(number: int = 0, at: float = 1.0, maker: str = "/bin/app") -> Origin:
    return Origin(run=IDS[number], at=at, maker=maker)


def reference(content: int = 0) -> FileReference:
    return FileReference(digests=(CONTENTS[content],))


ORIGINS = st.builds(
    Origin, run=st.sampled_from(IDS), at=st.sampled_from([0.0, 1.0, 2.5]), maker=st.sampled_from(["", "/bin/app"])
)


def _origins(keys: tuple[str, ...], least: int = 0) -> st.SearchStrategy[dict[str, Origin]]:
    return st.dictionaries(st.sampled_from(keys), ORIGINS, min_size=least, max_size=len(keys))


_BY_PATH = st.dictionaries(st.sampled_from(PATHS), _origins(CONTENTS, least=1), max_size=3)
RUNS = st.builds(
    run,
    st.integers(0, 2),
    seconds=st.sampled_from([10.0, 60.0]),
    running=st.sampled_from([(), ("/bin/app",), ("/bin/app", "/bin/sh")]),
    executed=st.sampled_from([(), ("/bin/sh",), ("/bin/app",)]),
)


CONTENT = st.builds(reference, st.integers(0, 1))


@st.composite
def learned(draw: st.DrawFn) -> Learned:
    """As a run leaves it: no file is both as it was and volatile."""
    include = draw(st.sampled_from([(), ("/srv",), ("/etc", "/srv")]))
    exempt = draw(st.sampled_from([(), ("*.log",)]))
    measured = [path for path in PATHS if path.startswith(include) and not (exempt and path.endswith(".log"))]
    volatile = draw(_origins(tuple(measured))) if measured else {}
    stay = [path for path in measured if path not in volatile]
    files = draw(st.dictionaries(st.sampled_from(stay), CONTENT, max_size=len(stay))) if stay else {}
    return Learned(
        runs=(draw(RUNS),),
        include=include,
        exempt=exempt,
        files=files,
        volatile=volatile,
        executables=draw(_BY_PATH),
        begun=draw(_BY_PATH),
        mapped=draw(_BY_PATH),
        preload=draw(_origins(("libx.so",))),
        code=draw(
            st.dictionaries(
                st.sampled_from(PATHS),
                st.builds(
                    Amount,
                    most=st.sampled_from([4096, 8192]),
                    writable=st.booleans(),
                    memfd=st.booleans(),
                    origin=ORIGINS,
                ),
                max_size=2,
            )
        ),
        calls=draw(st.dictionaries(st.sampled_from(["startup", "serving", "ending"]), _origins(CALLS), max_size=3)),
    )
