"""docs/problems.md, from the problem types. `python -m wire.document > docs/problems.md` writes it again."""

from __future__ import annotations

import sys

from wire.problems import BASE, Kind, status_of

MEANINGS: dict[Kind, tuple[str, str]] = {
    Kind.MALFORMED: ("The request is no message of the version spoken.", "Update whichever of the two is older."),
    Kind.TOO_LARGE: (
        "A message, or a layer's body in it, is over its bound.",
        "Measure fewer files, or name what changes by itself in `files.volatile`.",
    ),
    Kind.TOO_SLOW: ("The request was not complete in time.", "Look at the network; hold a session instead."),
    Kind.TOO_MANY: ("More alerts a second than are taken.", "Have the detector send fewer: by rule, or by priority."),
    Kind.NOT_FOUND: ("There is nothing under this path.", "Check `authority.url`."),
    Kind.VERSION_UNSUPPORTED: (
        "The two have no version of the wire in common; the detail names both ranges.",
        "Update the one that is named ([wire.md](wire.md)).",
    ),
    Kind.TOKEN_INVALID: (
        "The join token was never issued here; or a detector's is none of those that are configured.",
        "`proofbeat token create REGISTRATION`; of a detector, `detectors.tokenFiles` names the files.",
    ),
    Kind.TOKEN_EXPIRED: ("The join token's life is over.", "`proofbeat token create REGISTRATION`"),
    Kind.TOKEN_USED: (
        "Another instance, or another key, enrolled with this token. If that was not you, it was stolen.",
        "Look at `proofbeat status`, then `proofbeat token create REGISTRATION`",
    ),
    Kind.TICKET_INVALID: ("The re-entry ticket is not this instance's, or no longer the latest.", "A new join token."),
    Kind.TICKET_SPENT: ("The re-entry ticket was used under another key.", "A new join token."),
    Kind.PROOF_INVALID: (
        "The evidence key did not sign this request, or its challenge is forged, stale or used.",
        "Enrol again; the sidecar does so when it is restarted.",
    ),
    Kind.INSTANCE_UNKNOWN: ("The instance has not enrolled here.", "Enrol again: restart the sidecar."),
    Kind.INSTANCE_QUARANTINED: (
        "A cause stands that no measurement heals.",
        "`proofbeat why INSTANCE`; then a new instance, or `proofbeat release INSTANCE`.",
    ),
    Kind.REGISTRATION_UNKNOWN: ("No WorkloadRegistration has this name.", "Add one, or correct the name."),
    Kind.REGISTRATION_UNRULED: (
        "No AttestationPolicy is for this registration, or what is written for it cannot be used: it gets no identity.",
        "Write one whose selector chooses it; `proofbeat status` at the authority says what is wrong, and where.",
    ),
    Kind.REGISTRATION_CONFLICT: (
        "The instance is enrolled under another registration.",
        "A token of its own registration, or a new instance.",
    ),
    Kind.EVIDENCE_MALFORMED: (
        "Evidence, or a layer's body, that does not parse strictly.",
        "Update whichever of the two is older.",
    ),
    Kind.EVIDENCE_ALGORITHM: ("Evidence signed with anything but ES256.", "Only a foreign attester does that."),
    Kind.EVIDENCE_PROFILE: ("Evidence in a profile that is not spoken here.", "Update whichever is older."),
    Kind.EVIDENCE_KEY: ("The evidence is of another key than the one that enrolled.", "Enrol again."),
    Kind.EVIDENCE_SIGNATURE: ("The evidence was altered after it was signed.", "Look for who is in between."),
    Kind.EVIDENCE_INSTANCE: ("The evidence speaks of another instance.", "Look for who forwards it."),
    Kind.EVIDENCE_CLONED: (
        "Two statements over one nonce: two attesters share a key. The instance is quarantined.",
        "Start a new instance; find out where the key went.",
    ),
    Kind.NONCE_FORGED: ("This authority never issued the nonce.", "Ask for a new one."),
    Kind.NONCE_FOREIGN: ("The nonce was issued to another instance or key.", "Ask for one of your own."),
    Kind.NONCE_STALE: ("The nonce is too old, or of the future: a clock went back.", "Ask for a new one."),
    Kind.NONCE_PASSED: ("A later nonce has been answered already.", "Ask for a new one."),
    Kind.SEQUENCE_MISMATCH: ("The evidence's number is not the nonce's.", "Update whichever of the two is older."),
    Kind.GENERATION_PAST: ("A violation was reported after this generation.", "Measure and attest again."),
    Kind.POLICY_EPOCH_STALE: ("The evidence was made under a superseded policy.", "Fetch the policy, attest again."),
    Kind.LEAF_KEY: ("The certificate's key is none, or is the evidence key.", "One key for one use."),
    Kind.CLAIMS_IMPOSSIBLE: ("Claims that contradict themselves.", "Look at the attester's clock and release."),
    Kind.FULL_ROUND_REQUIRED: ("The last run ended unclean.", "Read every layer in full after asking for a nonce."),
    Kind.BODY_MISMATCH: ("A body is not what the evidence claims.", "Send the bytes that were measured."),
    Kind.RELEASE_VOID: ("The release leaves a cause standing, or there is none.", "`proofbeat why INSTANCE`"),
    Kind.BREAK_GLASS_VOID: (
        "The break-glass order does not hold here, is over, or was applied and ended before.",
        "`proofbeat breakglass verify`; an order that has ended is made and signed anew.",
    ),
    Kind.HOLD_OVER: (
        "Drift that was held back (`maxUnavailable`) closes by now.",
        "Attest again; `proofbeat why INSTANCE` names the drift.",
    ),
    Kind.CONFIGURATION: ("A setting or policy cannot be used.", "The detail names file and line."),
    Kind.UNAVAILABLE: ("Not now: the store, or the authority, is not ready.", "Try again; the sidecar does."),
    Kind.INTERNAL: ("A fault of the authority's own.", "Its log has the traceback."),
}
"""What each means, and how to mend it where the document itself does not say so better."""

_HEAD = f"""# Problems

Every refusal is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) document with the `type` below, under
`{BASE}`. Types are stable: programs may go by them, and a type never changes its meaning. `where` and
`mend` in the document speak of the very case; `faults` lists every failed step where the request was evidence.
This page is made from [wire/problems.py](../wire/problems.py): `python -m wire.document > docs/problems.md`.

| type | status | means | mend |
|---|---|---|---|
"""


def document() -> str:
    rows = (f"| `{kind}` | {status_of(kind)} | {means} | {mend} |\n" for kind, (means, mend) in MEANINGS.items())
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(document())
