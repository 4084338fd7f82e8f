"""Helpers that know nothing of angiograms: atomic writes, safe files, text."""
