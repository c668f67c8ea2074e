"""What judging a workload takes, beside Open Policy Agent."""
