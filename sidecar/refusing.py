"""Which of the authority's lists is in force: heard, believed, served, in this order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attestation.errors import MalformedResult
from sidecar import answers, clock, denials
from sidecar.answers import Membership
from sidecar.denials import Refusals
from wire.messages import Denials


class Refusing:
    """ask: for the authority's list; None where it knows of none. serve: has Envoy refuse those from now on.

    tell: called with each list that is believed.

    No CRL can be checked before our own first certificate tells who signs them: what is heard earlier waits for it.
    """

    def __init__(
        self,
        *,
        ask: Callable[[], Awaitable[Denials | None]],
        serve: Callable[[Refusals], None],
        membership: Callable[[], Membership],
        tell: Callable[[Denials], None],
    ) -> None:
        self._ask = ask
        self._serve = serve
        self._membership = membership
        self._tell = tell
        self._chain = b""
        self._early: Denials | None = None
        self._served = denials.nobody()

    def told(self, denials: Denials) -> None:
        """By push. Raises MalformedResult for a list that cannot be believed: the one before stays in force."""
        if self._chain:
            self._believe(denials)
        elif self._early is None or denials.version > self._early.version:
            self._early = denials

    async def caught_up(self, version: int, chain: bytes) -> None:
        """The list is no older than this version, for a certificate that is to be served next.

        chain: of that certificate. Raises Unavailable, Refused and MalformedResult: who does not know whom to refuse
        opens to nobody, and goes on only until its lease ends.
        """
        self._chain = chain
        early, self._early = self._early, None
        if early is not None:
            self._believe(early)
        if version > self._served.version:
            self._believe_at_least(version, await self._ask())

    def _believe_at_least(self, version: int, told: Denials | None) -> None:
        """Unless a push overtook it."""
        if self._served.version >= version:
            return
        if told is None or told.version < version:
            raise MalformedResult(
                f"it is older than version {version}, which an answer spoke of",
                where="list of denials",
                mend="Nothing is opened without it. Look at the authority's log.",
            )
        self._believe(told)

    def _believe(self, told: Denials) -> None:
        if told.version == self._served.version:
            return
        answers.believe_denials(told, self._served.version, self._chain, self._membership(), clock.now())
        self._served = Refusals.of(told)
        self._tell(told)
        self._serve(self._served)
