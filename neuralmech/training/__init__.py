"""Train a model and record it."""
