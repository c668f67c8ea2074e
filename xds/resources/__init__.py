"""Builders of Envoy resources: typed arguments in, serialised resources out."""
