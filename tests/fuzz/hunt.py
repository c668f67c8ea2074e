"""One target under libFuzzer's mutation, guided by coverage, in a process of its own: what it finds may end it."""

from __future__ import annotations

import sys

import atheris

GUIDED_BY = [
    *("attestation", "authority", "measurer", "policies", "sidecar", "wire", "xds"),
    *("h2", "hpack", "hyperframe", "joserfc", "yaml"),
]


def main() -> None:
    """`python -m tests.fuzz.hunt TARGET [libFuzzer's own arguments]`."""
    with atheris.instrument_imports(include=GUIDED_BY):
        from tests.fuzz.catalogue import TARGETS

    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
