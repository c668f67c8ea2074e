"""The certificate that evidence says is served is the one that peers are shown by a real Envoy."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from cryptography import x509

from tests.system.attacks.stage import PATIENCE
from tests.system.delivery.stage import own
from tests.system.xds.rig import LOCALHOST

ATTESTED: dict[str, Any] = {
    "layers": {"files": {}, "processes": {}, "proxy": {}},
    "proxy": {"requireReferenced": False},
}


def shown(port: int) -> int:
    """Serial number of the certificate that whoever calls is shown. Without one of its own it is then refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((LOCALHOST, port), PATIENCE) as plain, context.wrap_socket(plain) as shaken:
        certificate = shaken.getpeercert(binary_form=True)
    assert certificate
    return x509.load_der_x509_certificate(certificate).serial_number


def test_evidence_states_the_certificate_that_peers_were_shown_under_the_lease_before() -> None:
    with own(**ATTESTED, interval="1s") as running, running.stream() as stream:
        running.scene.attested(rounds=3)  # what the opening itself changed asks for rounds of its own, at once
        peers_saw, stated = {shown(running.inbound)}, [running.scene.hall.instance().served]
        end = time.monotonic() + PATIENCE
        while len(stated) < 4:
            assert time.monotonic() < end, "no round is made"
            peers_saw.add(shown(running.inbound))
            served = running.scene.hall.instance().served
            if served != stated[-1]:
                assert int(served, 16) in peers_saw
                stated.append(served)
        assert len(set(stated)) == len(stated), "another lease, another certificate"
        stream.ask()


def test_evidence_states_no_certificate_while_it_is_closed() -> None:
    with own(**ATTESTED) as running:
        with running.stream(), running.drifted() as before:
            running.scene.until("closed", after=before)
            assert running.scene.attested(rounds=2).served == ""
        with running.stream():
            assert running.scene.attested(rounds=2).served != ""
