"""What a workload was seen to execute, as reference values and as an allowance of a policy."""

from __future__ import annotations

from attestation.digests import Digest
from attestation.memory import Code, CodeKind
from policies.model.memory import CodeAllowance
from policies.model.references import FileReference, ReferenceSpec

HEADROOM = 4
"""So many times as much code as was seen may a compiler make: what was seen may be of its first minutes."""
_LEAST = 1 << 20
_LOOSE = (CodeKind.ANONYMOUS, CodeKind.MEMFD)


class CodeStudy:
    """Everything that was seen, also for a moment. files: path of what was mapped as code -> its contents."""

    def __init__(self) -> None:
        self.files: dict[str, set[Digest]] = {}
        self._loose: dict[str, list[Code]] = {}

    def saw(self, *code: Code) -> None:
        for each in code:
            if each.kind is CodeKind.FILE and each.digest:
                self.files.setdefault(each.path, set()).add(each.digest)
            if each.kind in _LOOSE or (each.kind is CodeKind.FILE and each.writable):
                self._loose.setdefault(each.executable, []).append(each)

    def referenced(self, spec: ReferenceSpec) -> ReferenceSpec:
        """With the files that were mapped as code among its own; what it states of a path already stays as it is."""
        new = {
            path: FileReference(digests=tuple(sorted(digests)))
            for path, digests in sorted(self.files.items())
            if path not in spec.files and path not in spec.executables
        }
        return spec.model_copy(update={"files": {**spec.files, **new}})

    @property
    def jit(self) -> tuple[CodeAllowance, ...]:
        """For each program that had code of no file, what it takes to let it have that again, and more of it."""
        return tuple(_allowance(executable, seen) for executable, seen in sorted(self._loose.items()))


def _allowance(executable: str, seen: list[Code]) -> CodeAllowance:
    """The two kinds are measured apart, so that what is allowed is the greater of both."""
    return CodeAllowance.model_construct(
        executable=executable,
        most=max(_LEAST, HEADROOM * max(each.amount for each in seen)),
        writable=any(each.writable for each in seen),
        memfd=any(each.kind is CodeKind.MEMFD for each in seen),
    )
