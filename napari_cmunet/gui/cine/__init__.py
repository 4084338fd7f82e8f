"""Cines in the window: frames, propagation, calibration."""
