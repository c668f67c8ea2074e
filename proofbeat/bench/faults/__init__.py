"""`bench faults`: random faults against a mesh under load, each judged by what traffic was still answered."""
