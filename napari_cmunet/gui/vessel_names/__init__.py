"""SYNTAX segments of vessels in the window."""
