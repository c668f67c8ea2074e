"""The front door: commands, settings, the process edge, the demo and the benchmarks. No logic of the product."""
