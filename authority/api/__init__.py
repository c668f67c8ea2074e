"""Thin handlers: bytes in, one call, bytes out."""
