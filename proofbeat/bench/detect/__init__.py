"""What somebody who broke into a workload does, act by act, and how long it takes until it is told and closed for."""
