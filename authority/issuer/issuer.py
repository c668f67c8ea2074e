"""Signs what the store has accepted. The same acceptance makes the same bytes, however often it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from attestation import jws, keys, results
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import crl, leaf
from authority.issuer.ca import Ca, utc
from authority.issuer.crl import Revoked
from authority.issuer.leaf import Leaf
from authority.store.records import Accepted


class Issuer:
    def __init__(self, ca: Ca) -> None:
        self._ca = ca
        self.signer = jws.Signer(ca.result_key)
        self.latest_ms = int(ca.intermediate.not_valid_after_utc.timestamp()) * 1000
        """No lease ends later: the intermediate's end, Unix milliseconds."""

    def ear(self, accepted: Accepted) -> str:
        return results.sign_payload(accepted.result, self.signer)

    def chain(self, accepted: Accepted, ear: str, identity: SpiffeId, instance: InstanceId) -> str:
        """PEM, leaf first, around the EAR. Raises Unavailable when the intermediate is at its end."""
        return leaf.sign(
            Leaf(
                identity=identity,
                instance=instance,
                public_key=keys.from_der(accepted.leaf_key),
                serial=accepted.serial,
                not_before=utc(accepted.not_before),
                not_after=utc(accepted.lease_end_ms / 1000),
                ear=ear,
                break_glass=accepted.break_glass,
            ),
            self._ca,
        )

    def fingerprint(self, accepted: Accepted, identity: SpiffeId, instance: InstanceId) -> str:
        """SHA-256 of the leaf that `chain` gave out for this, in lower-case hex: nobody has to keep leaves."""
        chain = self.chain(accepted, self.ear(accepted), identity, instance)
        return x509.load_pem_x509_certificate(chain.encode()).fingerprint(hashes.SHA256()).hex()

    def crl(self, revoked: Iterable[Revoked], number: int, made: datetime) -> bytes:
        """As authority.issuer.crl.sign."""
        return crl.sign(revoked, number, made, self._ca)
