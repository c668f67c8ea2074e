"""Before an execution: whether it may take place is answered here, by digest, where policy asks for that."""
