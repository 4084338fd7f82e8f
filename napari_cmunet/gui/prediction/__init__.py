"""Prediction in the window: model, threshold, queue."""
