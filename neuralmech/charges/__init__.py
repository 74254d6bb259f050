"""Evaluate all charges of an optimiser's step and what drives them: by torch, compiled for a CPU, on a GPU."""
