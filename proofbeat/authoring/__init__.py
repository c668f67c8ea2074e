"""What `proofbeat policy` does: reads documents, asks policies/author, and prints."""
