"""Masks and labels as files: own, and of other programs."""
