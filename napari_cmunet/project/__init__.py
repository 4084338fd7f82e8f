"""A reader's work on disk: images by reference, labels, split, models, journal."""
