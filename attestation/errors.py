"""The exception tree.

ProofbeatError
├── InvalidInput           somebody handed us something malformed, oversized or out of range
│   ├── MalformedEvidence  CBOR, COSE or claims that do not parse under the strict rules
│   ├── MalformedResult    an attestation result (EAR) that does not parse or verify
│   └── InvalidConfiguration  a setting, policy or reference file; carries the place in the file
├── Refused                the other side understood and said no; carries the problem type
├── Unavailable            the other side could not be reached or did not answer in time; try again
└── WorkloadGone           the measured instance ended; its identity ends with it

Every message answers three questions: what is wrong, where, and how to mend it.
"""

from __future__ import annotations


class ProofbeatError(Exception):
    """Root of everything Proofbeat raises on purpose.

    what:  one clause naming the fault.
    where: the file, field, peer or step it was found in.
    mend:  what the reader can do about it; empty when there is nothing they can do.
    """

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The whole message on one line."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}. {self.mend}" if self.mend else line


class InvalidInput(ProofbeatError):
    """Malformed, oversized or out of range."""


class MalformedEvidence(InvalidInput):
    """CBOR, COSE or claims that break the strict rules."""


class MalformedResult(InvalidInput):
    """An attestation result that does not parse or whose signature does not hold."""


class InvalidConfiguration(InvalidInput):
    """A setting, policy or reference file that cannot be used."""


class Refused(ProofbeatError):
    """The other side understood the request and said no.

    kind: the stable problem type (RFC 9457 `type`, without its base URI), e.g. `token-expired`.
    """

    def __init__(self, what: str, *, kind: str, where: str = "", mend: str = "") -> None:
        self.kind = kind
        super().__init__(what, where=where, mend=mend)


class Unavailable(ProofbeatError):
    """The other side could not be reached or did not answer in time; trying again may help."""


class WorkloadGone(ProofbeatError):
    """The measured instance has ended."""
