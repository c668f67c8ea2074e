"""The processes layer: what runs in the workload's scope, what it executes, what it may do."""
