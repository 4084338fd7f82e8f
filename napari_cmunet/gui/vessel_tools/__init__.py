"""Tools made for vessels, as modes on the mask layer, and where to look next."""
