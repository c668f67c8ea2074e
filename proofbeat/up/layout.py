"""Where everything of one `proofbeat up` lives, and the documents written for it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from attestation.quantities import duration
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from proofbeat import documents
from proofbeat.up.learning import Learned
from proofbeat.up.listening import Port

NAME = "app"
CA_SECONDS = 24 * 3600.0
_PEERS, _CALLS = 8443, 7000


@dataclass(frozen=True, slots=True)
class Layout:
    """A trust domain and loopback addresses of this run alone. calls: where the service is called, in plaintext."""

    folder: Path
    trust_domain: str
    network: str
    calls: str
    protocol: Literal["http", "tcp"]

    @classmethod
    def make(cls, folder: Path, protocol: Literal["http", "tcp"], calls: str | None) -> Layout:
        network = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}"
        return cls(
            folder,
            f"up-{secrets.token_hex(4)}.example",
            network,
            calls or f"{network}.1:{_CALLS}",
            protocol,
        )

    @property
    def spiffe_id(self) -> str:
        return f"spiffe://{self.trust_domain}/{NAME}"

    @property
    def url(self) -> str:
        """How the service is called through its mesh of one."""
        return f"http://{self.calls}/" if self.protocol == "http" else self.calls

    @property
    def authority_config(self) -> Path:
        return self.folder / "authority.yaml"

    @property
    def admin(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def sidecar_config(self) -> Path:
        return self.folder / "sidecar.yaml"

    @property
    def policy(self) -> Path:
        return self.folder / "policies" / f"{NAME}.yaml"

    def write_policy(self, include: tuple[str, ...], learned: Learned, volatile: tuple[str, ...]) -> None:
        """What was learned, enforced."""
        spec = {
            "mode": "enforce",
            "interval": "2s",
            "freshness": "20s",
            "deadman": "3s",
            "files": {"include": include, "volatile": (*volatile, *learned.volatile)},
        }
        policy = AttestationPolicy(metadata=Metadata(name="learned"), spec=PolicySpec.model_validate(spec))
        self.policy.parent.mkdir(exist_ok=True)
        self.policy.write_text(documents.governing(NAME, self.spiffe_id, policy, learned.references))

    def write_authority(self, ca_name: str) -> None:
        config = {
            "trustDomain": self.trust_domain,
            "listen": f"{self.network}.10:8443",
            "store": "store/authority.sqlite",
            "policies": [self.policy.parent.name],
            "ca": {"folder": "ca", "name": ca_name, "lifetime": duration(CA_SECONDS)},
            "admin": self.admin.name,
        }
        self.authority_config.write_text(yaml.safe_dump(config, sort_keys=False))

    def write_sidecar(self, pid: int, token: str, port: Port) -> None:
        """The service calls itself: out through a plaintext port, in through mutual TLS, to where it listens."""
        file = self.folder / "token"
        file.touch(mode=0o600)
        file.write_text(token)
        peers = f"{self.network}.11:{_PEERS}"
        inbound = {"listen": peers, "app": str(port), "protocol": self.protocol, "callers": [self.spiffe_id]}
        upstream = {
            "name": NAME,
            "listen": self.calls,
            "peers": [peers],
            "protocol": self.protocol,
            "identities": [self.spiffe_id],
        }
        config = {
            "trustDomain": self.trust_domain,
            "authority": {"url": f"https://{self.network}.10:8443", "bundle": str(self.folder / "ca" / "root.pem")},
            "enrolment": {"joinTokenFile": str(file)},
            "workload": {"pid": pid},
            "delivery": {
                "mode": "xds",
                "socket": str(self.folder / "xds.sock"),
                "service": {
                    "bootstrap": str(self.folder / "envoy.json"),
                    "admin": str(self.folder / "envoy-admin.sock"),
                    "accessLog": str(self.folder / "access.log"),
                    "inbound": [inbound],
                    "upstreams": [upstream],
                },
            },
            "state": str(self.folder / "state"),
        }
        self.sidecar_config.write_text(yaml.safe_dump(config, sort_keys=False))
