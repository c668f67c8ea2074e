"""A mesh that lives for one run on this machine: its programs and what they log, their settings, its authority."""
