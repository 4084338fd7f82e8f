"""Readers in the window: who reads, review, versions of a label."""
