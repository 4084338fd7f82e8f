"""Read DICOM angiograms: XA, XRF and Secondary Capture, one frame or a cine."""
