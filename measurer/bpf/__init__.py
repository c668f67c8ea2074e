"""Programs in the kernel: what they are compiled from, and how they get there."""
