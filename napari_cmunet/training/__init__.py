"""Few-shot fine-tuning. No Qt, no napari."""
