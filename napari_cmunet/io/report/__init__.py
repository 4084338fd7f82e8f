"""The report of measurements, one HTML file."""
