"""Calls that wait for an answer: the workload was started under a filter that notifies us of them."""
