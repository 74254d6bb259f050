"""Compare what was measured with what the laws say: `measure` a run, `gather` a folder's, `show`. Needs no torch."""
