"""What the authority must not forget: one method a transaction."""
