"""Keylime runtime policies (version 1, since Keylime 6.5), plain or in a DSSE envelope.

They say what IMA may have measured: files that were executed, mapped or read. So what is listed may be there and may be
executed; nothing has to be there. Excludes are regular expressions over paths that are judged by nobody: they are
proposed, for a policy to take them over, and never applied.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import InvalidInput
from policies.author.references.build import Report
from policies.author.references.listed import Listed, objects, parsed, text
from policies.author.references.tree import Parts

_PAYLOAD = "application/vnd.keylime+json"
_VERSION = 1
_PLAIN = re.compile(r"[\w/ @%=:,~<>!&#'\"-]+")
_FOLDERS = re.compile(r"/\*{2,}/")
"""In a pattern these are any number of folders, none as well; an expression has at least a second slash there."""
_NOT_FILES = {
    "keyrings": "keys that may be loaded",
    "ima-buf": "buffers that IMA measured",
    "verification-keys": "keys by which files are signed",
}


def policy(
    document: dict[str, Any],
    origin: str,
    report: Report,
    mounted: Parts = (),
    key: ec.EllipticCurvePublicKey | None = None,
) -> Listed:
    """Raises InvalidInput. key: by which it must be signed; None where that is not asked."""
    content = _opened(document, origin, report, key)
    meta, digests = content.get("meta"), content.get("digests")
    if not isinstance(meta, dict) or meta.get("version") != _VERSION or not isinstance(digests, dict):
        raise InvalidInput(
            "it is no Keylime runtime policy of version 1",
            where=origin,
            mend="Convert it: keylime_convert_runtime_policy.",
        )
    listed = Listed(origin, mounted, report)
    for path, stated in digests.items():
        if not path.startswith("/"):
            report.skip("no-path", "it is no path of a file", path)
            continue
        listed.add(path, tuple(text(each) for each in stated) if isinstance(stated, list) else ())
    _excluded(content.get("excludes"), report)
    ima = content.get("ima")
    for name, what in _NOT_FILES.items():
        if content.get(name):
            report.skip(name, f"{what} are nothing that reference values state", name)
    if isinstance(ima, dict) and ima.get("dm_policy"):
        report.skip("dm_policy", "device mapper tables are nothing that reference values state", "ima.dm_policy")
    return listed


def _excluded(excludes: Any, report: Report) -> None:
    for expression in excludes if isinstance(excludes, list) else ():
        pattern = glob(text(expression))
        if pattern is None:
            report.skip("exclude", "no pattern says the same as this expression: write one that does", text(expression))
        else:
            report.proposed.setdefault("volatile", []).append(pattern)


def glob(expression: str) -> str | None:
    """The pattern that matches the same absolute paths, for the simple expressions that people write; else None.

    Keylime asks whether a path *begins* with a match.
    """
    body, to_the_end = expression.removeprefix("^"), expression.endswith("$") and not expression.endswith("\\$")
    body = body[:-1] if to_the_end else body
    parts: list[str] | None = [] if body.startswith("/") else None
    while body and parts is not None:
        if body.startswith(".*"):
            parts, body = [*parts, "**"], body[2:]
        elif body.startswith(("\\.", "\\-")):
            parts, body = [*parts, body[1]], body[2:]
        elif plain := _PLAIN.match(body):
            parts, body = [*parts, plain[0]], body[plain.end() :]
        else:
            parts = None
    if parts is None:
        return None
    pattern = "".join(parts if to_the_end or parts[-1:] == ["**"] else [*parts, "**"])
    return None if _FOLDERS.search(pattern) else pattern


# --- the envelope ---


def _opened(
    document: dict[str, Any], origin: str, report: Report, key: ec.EllipticCurvePublicKey | None
) -> dict[str, Any]:
    """What is in a DSSE envelope, or the document itself."""
    if "payloadType" not in document:
        if key is not None:
            raise InvalidInput("it is not signed", where=origin, mend="Sign it: keylime-policy sign runtime.")
        return document
    kind = text(document.get("payloadType"))
    if kind != _PAYLOAD:
        raise InvalidInput(f"an envelope around {kind!r}", where=origin, mend="Name a Keylime runtime policy.")
    payload = _decoded(document.get("payload"), origin)
    if key is None:
        report.notes.append("It is signed, and by whom was not asked: name the key by --signed-by.")
    elif not any(_signed(kind, payload, each, key, origin) for each in objects(document.get("signatures"))):
        raise InvalidInput("no signature of it is by the key that was named", where=origin, mend="Check --signed-by.")
    return parsed(payload, origin)


def _signed(kind: str, payload: bytes, signature: dict[str, Any], key: ec.EllipticCurvePublicKey, origin: str) -> bool:
    """DSSE's pre-authentication encoding, ECDSA over SHA-256 in DER, as keylime-policy signs."""
    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    try:
        key.verify(_decoded(signature.get("sig"), origin), encoded, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _decoded(value: Any, origin: str) -> bytes:
    try:
        return base64.b64decode(text(value).replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("an envelope that is not base64", where=origin) from error
