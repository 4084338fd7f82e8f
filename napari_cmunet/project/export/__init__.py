"""Export of accepted labels."""
