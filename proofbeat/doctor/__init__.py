"""`proofbeat doctor`: what this machine, kernel and user permit; what each missing thing costs; what mends it."""
