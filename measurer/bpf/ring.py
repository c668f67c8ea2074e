"""The kernel's ring buffer (Documentation/bpf/ringbuf.rst), read through its own pages: no call for an event."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator

_POSITION, _HEADER = struct.Struct("=Q"), struct.Struct("=I")
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER_BYTES = 8
_WRITTEN_IN, _WRITTEN_WITHIN = 0.00005, 0.25
"""Seconds that a record which is being written is waited for, from look to look and in all."""


class Ring:
    """descriptor: of the map, which stays its owner's, and can be waited on. size: as it was made with."""

    def __init__(self, descriptor: int, size: int) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        self.descriptor = descriptor
        self._mask, self._data = size - 1, page
        self._consumer = mmap.mmap(descriptor, page)
        # The kernel maps what it wrote twice in a row, so that no record is in two pieces.
        self._producer = mmap.mmap(descriptor, page + 2 * size, prot=mmap.PROT_READ, offset=page)

    def read(self, *, whole: bool = False) -> Iterator[bytes]:
        """The records there are, up to one that is being written. What was taken is the kernel's again as soon as the
        next one is asked for.

        whole: one that was being written when this was called is waited for. Raises TimeoutError where it stays so.
        """
        at, upto, left = int(_POSITION.unpack_from(self._consumer)[0]), self._put if whole else 0, _WRITTEN_WITHIN
        while at < self._put:
            start = self._data + (at & self._mask)
            length = int(_HEADER.unpack_from(self._producer, start)[0])
            if length & _BUSY:  # another processor writes it
                if at >= upto:
                    return
                if left < 0:
                    raise TimeoutError
                time.sleep(_WRITTEN_IN)
                left -= _WRITTEN_IN
                continue
            size = length & ~(_BUSY | _DISCARDED)
            record = self._producer[start + _HEADER_BYTES : start + _HEADER_BYTES + size]
            at += (_HEADER_BYTES + size + 7) & ~7
            _POSITION.pack_into(self._consumer, 0, at)
            if not length & _DISCARDED:
                yield record

    @property
    def _put(self) -> int:
        """Bytes that were ever put in, or are being put."""
        return int(_POSITION.unpack_from(self._producer)[0])

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
