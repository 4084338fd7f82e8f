"""The labels of a project, their drafts and their history."""
