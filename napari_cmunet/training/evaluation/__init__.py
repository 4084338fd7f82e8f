"""Measure networks, leave patients out, compare models."""
