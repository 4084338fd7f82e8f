"""Fine-tuning from the labels of a project."""
