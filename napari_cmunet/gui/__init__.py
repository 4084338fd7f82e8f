"""The window: panels and one controller. Qt and napari here, never torch on import."""
