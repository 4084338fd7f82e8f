"""The science: network, training, prediction, metrics. No Qt, no napari."""
