"""Quantitative coronary analysis in the window."""
