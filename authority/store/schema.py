"""The tables. Times are Unix milliseconds, secrets are digests, types are plain: any SQL database will do."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

tokens = Table(
    "tokens",
    metadata,
    Column("token", String(64), primary_key=True),
    Column("registration", String(512), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    # Who used it; a retry by the same instance with the same key gets the same answer.
    Column("instance", String(34)),
    Column("thumbprint", String(64)),
)

instances = Table(
    "instances",
    metadata,
    Column("instance", String(34), primary_key=True),
    Column("registration", String(512), nullable=False),
    Column("thumbprint", String(64), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("ticket", String(64), nullable=False),
    Column("ticket_before", String(64), nullable=False),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("ended_clean", Boolean, nullable=False),
    Column("full_required", Boolean, nullable=False),
    Column("quarantined", Boolean, nullable=False),
    Column("release", Text, nullable=False),
    # Open or closed, as history tells it (authority/store/records.py, State), and since when.
    Column("state", String(16), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    # When its last run said goodbye or was lost; 0 while there is one.
    Column("left_ms", BigInteger, nullable=False),
    # Of the last round that was accepted.
    Column("sequence", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("tier", Integer, nullable=False),
    Column("lease_end_ms", BigInteger, nullable=False),
    Column("last_round_ms", BigInteger, nullable=False),
    # The list of denials that its Envoy had acknowledged, by its own evidence.
    Column("revocation", BigInteger, nullable=False),
    # The serial of the certificate that its Envoy served, likewise; empty for none.
    Column("served", String(40), nullable=False),
    Index("instances_of", "registration"),
)

rounds = Table(
    "rounds",
    metadata,
    Column("instance", String(34), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("evidence", String(64), nullable=False),
    Column("tier", Integer, nullable=False),
    # What the answer was made from; signing it again gives the same bytes.
    Column("result", LargeBinary, nullable=False),
    Column("leaf_key", LargeBinary, nullable=False),
    Column("serial", String(40), nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("lease_end_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    # The order that let it through although it does not affirm, or empty.
    Column("break_glass", String(35), nullable=False),
    # The drift that is held back, or empty.
    Column("held", String(34), nullable=False),
    Index("rounds_by_age", "at_ms"),
)

# Where an instance says that its Envoy listens for peers.
addresses = Table(
    "addresses",
    metadata,
    Column("instance", String(34), primary_key=True),
    Column("address", String(64), primary_key=True),
    Index("claimed_addresses", "address"),
)

causes = Table(
    "causes",
    metadata,
    Column("id", String(34), primary_key=True),
    Column("instance", String(34), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("recorded_ms", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    # A cause that binds quarantines until it is released; others (drift, audit) are a record.
    Column("binding", Boolean, nullable=False),
    Column("released", Boolean, nullable=False),
)

# What changed for an instance, and why: one row a change, none a round. A record; decisions never read it.
history = Table(
    "history",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("instance", String(34), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("text", Text, nullable=False),
    # An Explanation as JSON, or empty.
    Column("explanation", Text, nullable=False),
    Index("history_of", "instance", "number"),
    Index("history_by_age", "at_ms"),
)

# Every break-glass order that was ever applied; none is forgotten, so that none is applied twice.
breakglass = Table(
    "breakglass",
    metadata,
    Column("id", String(35), primary_key=True),
    Column("document", Text, nullable=False),
    # JSON lists of names.
    Column("registrations", Text, nullable=False),
    Column("signed_by", Text, nullable=False),
    Column("applied_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    Column("ended", Text, nullable=False),
)

# For whom an order that stands does so no longer; `registrations` has lost them.
withdrawn = Table(
    "breakglass_withdrawn",
    metadata,
    Column("id", String(35), primary_key=True),
    Column("registration", String(512), primary_key=True),
    Column("why", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# Which instance has which drift (attestation/drift.py), where policy lets one close only a share of them; whether it is
# closed for it, or was told to close. What is affirmed again has no rows.
holds = Table(
    "holds",
    metadata,
    Column("instance", String(34), primary_key=True),
    Column("drift", String(34), primary_key=True),
    Column("registration", String(512), nullable=False),
    Column("name", Text, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Index("holds_of", "registration", "drift"),
)

# One row: the list of denials that peers were told last. digest: of whom it names.
denials = Table(
    "denials",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# One row: the version of these tables.
versions = Table("versions", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

epochs = Table(
    "epochs",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# Which namespace's each SPIFFE ID is, by the policies of the latest epoch.
holders = Table(
    "holders",
    metadata,
    Column("spiffe_id", String(2048), primary_key=True),
    Column("namespace", String(253), nullable=False),
)
