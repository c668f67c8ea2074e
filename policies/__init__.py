"""What "fresh" means for a workload, and the judgement of claims and facts against it."""
