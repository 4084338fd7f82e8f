"""Tools made for vessels: the tree of a mask, paths, lumens, and edits of a mask."""
