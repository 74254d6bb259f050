"""Find the symmetries of a model's loss: a traced graph, three algebras that walk it, their null spaces."""
