"""Compare what was measured with what the laws say: errors, tables, figures. Needs no torch."""
