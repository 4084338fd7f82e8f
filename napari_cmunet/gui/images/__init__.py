"""Open images in the viewer: their layers, masks, corrections and undo history."""
