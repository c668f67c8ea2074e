"""The layer of system calls, and what else only programs in the kernel see at once."""
