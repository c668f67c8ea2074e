"""What an intruder does in a process: small programs, for the benchmark of detection, the demo, and up."""
