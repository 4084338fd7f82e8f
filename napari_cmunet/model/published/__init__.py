"""Checkpoints that the authors of CM-UNet published: read safely, made into models."""
