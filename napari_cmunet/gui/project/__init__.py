"""A project in the window: its images one after the other, accepted as labels."""
