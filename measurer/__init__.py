"""The privileged process beside a workload: it watches, measures and guards, and decides nothing."""
