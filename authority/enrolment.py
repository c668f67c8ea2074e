"""Enrolment: who may speak for an instance, and under which evidence key.

Tickets rotate, and each is made of the credential that bought it, the instance and the key, by a secret of ours. So
an answer that got lost is given again to whoever repeats the application with the same key, for as long as the
ticket in it has not been used; anybody with another key gets nothing.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

from attestation import digests, keys
from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.instance import InstanceId
from authority.instances import Instances
from authority.issuer.ca import Ca
from authority.keyring import Keyring
from authority.nonces import Nonces
from authority.rules import Rules
from authority.store.enrolments import Application
from authority.store.store import Store
from wire.messages import Enrol, Enrolment
from wire.proofs import Opened, Purpose

SHORTEST_TOKEN, LONGEST_TOKEN = 60.0, 30 * 86400.0
"""Lifetimes of a join token, in seconds."""


class Enrolments:
    def __init__(
        self,
        store: Store,
        instances: Instances,
        nonces: Nonces,
        ca: Ca,
        keyring: Keyring,
        rules: Callable[[], Rules],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._instances = instances
        self._nonces = nonces
        self._ca = ca
        self._keyring = keyring
        self._rules = rules
        self._clock = clock

    async def create_token(self, registration: str, lifetime: float) -> str:
        """A join token that enrols one instance. lifetime: seconds. Raises Refused, InvalidInput."""
        if not SHORTEST_TOKEN <= lifetime <= LONGEST_TOKEN:
            raise InvalidInput(f"a lifetime of {lifetime:g} s", where="token", mend="Between 1m and 30d.")
        self._rules().of(registration)
        token = secrets.token_urlsafe(32)
        now_ms = self._now_ms()
        expires_ms = now_ms + int(lifetime * 1000)
        await self._store.add_token(_hashed(token), registration, expires_ms=expires_ms, now_ms=now_ms)
        return token

    async def enrol(self, sealed: bytes) -> tuple[Enrolment, InstanceId]:
        """The answer, and who it is for.

        Raises Refused (proof-invalid, token-*, ticket-*, registration-*) and MalformedEvidence.
        """
        # 1. Whoever asks has the evidence key.
        opened = Opened(sealed)
        request = opened.claimed(Enrol)
        key = keys.from_der(request.key)
        opened.check(Purpose.ENROL, key)
        # 2. And a credential for the instance.
        if bool(request.join_token) == bool(request.ticket):
            raise InvalidInput("neither or both of join token and ticket", where="enrolment")
        thumbprint = keys.thumbprint(key)
        ticket = self._next_ticket(request, thumbprint)
        application = Application(
            instance=request.instance,
            thumbprint=thumbprint,
            public_key=request.key,
            token=_hashed(request.join_token) if request.join_token else "",
            ticket=_hashed(request.ticket) if request.ticket else "",
            next_ticket=_hashed(ticket),
            unclean=request.unclean,
        )
        rules = self._rules()
        held_by = {name: ruling.awaits_release for name, ruling in rules.registrations.items()}
        enrolled = await self._store.enrol(application, held_by, self._now_ms())
        self._instances.put(enrolled)
        # 3. A quarantined instance enrols like any other, and is told so: it just never gets a certificate.
        ruling = rules.of(enrolled.registration)
        enrolment = Enrolment(
            spiffe_id=str(ruling.identity),
            ticket=ticket,
            nonce=self._nonces.issue(enrolled, ruling),
            policy=ruling.document,
            policy_epoch=rules.epoch,
            bundle=self._ca.bundle,
            result_key=keys.public_der(self._ca.result_key.public_key()),
            standing=enrolled.standing,
        )
        return enrolment, enrolled.instance

    def _next_ticket(self, request: Enrol, thumbprint: Digest) -> str:
        credential = f"token {request.join_token}" if request.join_token else f"ticket {request.ticket}"
        made = self._keyring.ticket(request.instance.value.encode(), thumbprint.encode(), credential.encode())
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _hashed(secret: str) -> Digest:
    """256 random bits need no salt and no slow hash."""
    return digests.tagged("credential", secret.encode())
