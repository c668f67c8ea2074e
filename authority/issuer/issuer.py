"""Signs what the store has accepted. The same acceptance makes the same bytes, however often it is asked for."""

from __future__ import annotations

from attestation import jws, keys, results
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from authority.issuer import leaf
from authority.issuer.ca import Ca, utc
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
            ),
            self._ca,
        )
