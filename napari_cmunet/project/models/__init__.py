"""The models of a project: stored, compared, put in use."""
