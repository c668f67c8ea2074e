"""The main job on this machine: real services, real Envoys, real attacks, told while it happens."""
