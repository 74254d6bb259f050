"""Evaluate all charges of an optimiser's step, and the drives that move them: by torch, compiled for a CPU, on a GPU."""
