"""What is computed of one run (errors, accounts, equilibrium), or of two: predictions of one by the other."""
