"""Fine-tuning from the window: its process, its state, and how both are shown."""
