"""A workload that does far more than its measurer can look at one by one: what is told of it, and what it costs."""
