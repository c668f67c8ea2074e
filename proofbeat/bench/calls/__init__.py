"""What it costs to have system calls looked at."""
