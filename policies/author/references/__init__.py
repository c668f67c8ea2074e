"""Reference values without a running workload: from what is shipped, or from what somebody else says of it."""
