"""The network, its preprocessing, prediction, and model folders."""
