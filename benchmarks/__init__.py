"""Programs that measure the speed and the quality of napari-cmunet."""
