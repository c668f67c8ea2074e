"""What processes have mapped as code: read of them, compared with its files, told."""
