"""What a symmetry is: groups and their factored generators, matrix-valued families, where parameters lie."""
