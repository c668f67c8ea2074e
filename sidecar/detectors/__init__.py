"""Alerts of somebody else's detectors: taken from a socket of ours and from the authority, and made facts."""
