"""`proofbeat policy learn`: a workload watched, and what it may do written down."""
