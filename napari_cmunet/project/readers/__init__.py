"""Several readers of a project: their labels, agreement and decisions."""
