"""Whether claims hold: finite transformations, gradient and Hessian constraints, in every precision."""
