"""Benchmarks: what is claimed, measured on real Envoys, with budgets that can fail."""
