"""What detectors of somebody else's say: Falco's and Tetragon's JSON, and whom it is about."""
