"""Angiograms in (NPY, TIFF, PNG, WebP, JPEG, BMP), mask TIFFs out."""
