"""One line, or one body: what a detector has said, by whichever of them it is."""

from __future__ import annotations

from attestation import strictjson
from attestation.detectors import falco, tetragon
from attestation.detectors.alerts import Heard
from attestation.errors import InvalidInput

MOST_BYTES = 64 * 1024
"""Of one alert. Tetragon's longest are those with the arguments of all ancestors."""


def read(line: bytes) -> Heard:
    """Raises InvalidInput for what is too long, no JSON as RFC 8259 has it, or neither Falco's nor Tetragon's."""
    if len(line) > MOST_BYTES:
        raise InvalidInput(f"an alert of more than {MOST_BYTES} bytes", where="detector")
    document = strictjson.loads(line)
    if isinstance(document, dict) and falco.ours(document):
        return falco.read(document)
    if isinstance(document, dict) and tetragon.ours(document):
        return tetragon.read(document)
    raise InvalidInput(
        "neither an alert of Falco's nor an event of Tetragon's",
        where="detector",
        mend="`json_output: true`, or `tetra getevents -o json`.",
    )
