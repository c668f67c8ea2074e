"""`proofbeat up -- CMD`: a mesh of one around somebody's own program, with a policy learned from watching it."""
