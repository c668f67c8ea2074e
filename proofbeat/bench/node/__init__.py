"""`bench node`: one measurer for many workloads, beside a measurer each."""
