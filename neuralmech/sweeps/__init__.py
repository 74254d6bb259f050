"""Sweeps: what became of each job, worker processes that carry jobs out, and a table of both."""
