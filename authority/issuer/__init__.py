"""The CA: certificates that end with the lease."""
