"""Self-supervised pre-training after CM-UNet (arXiv 2507.17779)."""
