"""Turns leases and closings into what Envoy serves. Executes closings; freshness decides them."""
