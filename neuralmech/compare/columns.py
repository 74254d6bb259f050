"""Names of the columns of numbers in a comparison."""

MEASURES = ("error", "unexplained", "max_error", "final_error")
QUANTILES = ("q10", "median", "q90")  # over a site's charges
