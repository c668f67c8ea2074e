"""A result inside a certificate: the CMW extension (draft-ietf-rats-msg-wrap, section 6), as a JSON record.

CMW ::= CHOICE { json UTF8String, cbor OCTET STRING }; the record is [media type, base64url, indicator bits].
"""

from __future__ import annotations

import base64
import json

from cryptography import x509

from attestation import strictjson
from attestation.errors import InvalidInput, MalformedResult

OID = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.35")
EAR_TYPE = "application/eat+jwt"
_RESULTS = 1 << 3
_UTF8_STRING = 0x0C
_WHERE = "CMW extension"


def extension(ear: str) -> x509.UnrecognizedExtension:
    """The extension that carries this EAR; add it as not critical."""
    value = base64.urlsafe_b64encode(ear.encode()).rstrip(b"=").decode()
    return x509.UnrecognizedExtension(OID, _utf8_string(json.dumps([EAR_TYPE, value, _RESULTS]).encode()))


def ear_of(certificate: x509.Certificate) -> str:
    """The EAR, unverified, that a certificate carries. Raises MalformedResult when there is none, or it is odd."""
    try:
        found = certificate.extensions.get_extension_for_oid(OID)
    except x509.ExtensionNotFound as error:
        raise MalformedResult("the certificate carries no attestation result", where=_WHERE) from error
    if found.critical or not isinstance(found.value, x509.UnrecognizedExtension):
        raise MalformedResult("it is critical, which it must not be", where=_WHERE)
    return ear_in(found.value.value)


def ear_in(extension: bytes) -> str:
    """The EAR, unverified, in the extension's DER. Raises MalformedResult."""
    try:
        kind, value, indicator = strictjson.loads(_content(extension))
        ear = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode("ascii")
    except MalformedResult:
        raise
    except (ValueError, TypeError, InvalidInput) as error:
        raise MalformedResult("not a JSON record", where=_WHERE) from error
    if (kind, indicator) != (EAR_TYPE, _RESULTS):
        raise MalformedResult(f"a record of {kind!r}, where {EAR_TYPE!r} belongs", where=_WHERE)
    return ear


def _utf8_string(content: bytes) -> bytes:
    """DER: tag, length, content."""
    if len(content) < 0x80:
        return bytes([_UTF8_STRING, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([_UTF8_STRING, 0x80 | len(length)]) + length + content


def _content(der: bytes) -> bytes:
    """The UTF8String's content; only the one encoding that `_utf8_string` makes is read."""
    for header in range(2, 7):
        content = der[header:]
        if der == _utf8_string(content):
            return content
    raise MalformedResult("not one DER UTF8String", where=_WHERE)
