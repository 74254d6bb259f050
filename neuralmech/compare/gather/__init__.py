"""Find the runs of a folder, compare each with theory, and gather what was found into tables."""
