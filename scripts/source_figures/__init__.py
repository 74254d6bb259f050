"""The figures of the sources, from this project's own runs; `scripts/figures.py` draws them all."""
