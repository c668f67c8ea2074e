"""Turns evidence into a judgement, in numbered steps."""
