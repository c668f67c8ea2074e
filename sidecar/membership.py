"""Enrolment: with the ticket of an earlier run where there is one, else with the join token, until it is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import InvalidConfiguration, Refused, Unavailable
from attestation.instance import InstanceId
from sidecar import clock
from sidecar.retries import Retries
from sidecar.standing import StateFolder
from wire.messages import Enrolment
from wire.session import AuthorityClient, JoinToken, Ticket


@dataclass(frozen=True, slots=True)
class Enrolled:
    """sent: CLOCK_BOOTTIME at which the request that brought the first nonce left us."""

    enrolment: Enrolment
    sent: float


async def enrol(
    client: AuthorityClient,
    state: StateFolder,
    token_file: Path,
    instance: InstanceId,
    key: ec.EllipticCurvePrivateKey,
    *,
    unclean: bool,
    waiting: Callable[[str, float], None],
) -> Enrolled:
    """Tries for ever while the authority is out of reach, telling `waiting` the reason and the pause in seconds.

    Raises Refused when neither ticket nor token is accepted.
    """
    retries = Retries()
    while True:
        try:
            return await _once(client, state, token_file, instance, key, unclean=unclean)
        except Unavailable as error:
            pause = retries.pause()
            waiting(error.sentence, pause)
            await asyncio.sleep(pause)


async def _once(
    client: AuthorityClient,
    state: StateFolder,
    token_file: Path,
    instance: InstanceId,
    key: ec.EllipticCurvePrivateKey,
    *,
    unclean: bool,
) -> Enrolled:
    ticket = state.ticket()
    if ticket:
        try:
            return await _present(client, state, Ticket(ticket), instance, key, unclean=unclean)
        except Refused:
            # The ticket is another instance's, or was used: the join token decides.
            pass
    return await _present(client, state, JoinToken(_read_token(token_file)), instance, key, unclean=unclean)


async def _present(
    client: AuthorityClient,
    state: StateFolder,
    credential: JoinToken | Ticket,
    instance: InstanceId,
    key: ec.EllipticCurvePrivateKey,
    *,
    unclean: bool,
) -> Enrolled:
    state.make_room()
    sent = clock.now().boot
    enrolment = await client.enrol(credential, instance, key, unclean=unclean)
    state.keep_ticket(enrolment.ticket)
    return Enrolled(enrolment, sent)


def _read_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise InvalidConfiguration(
            f"the join token cannot be read: {error.strerror}",
            where=str(path),
            mend="Write one there: proofbeat token create REGISTRATION > FILE",
        ) from error
