"""`bench cut`: open connections of several kinds through two Envoys, and when each end sees that they are cut."""
