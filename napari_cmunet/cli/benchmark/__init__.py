"""How fast this machine runs the program, beside the paper's way of doing the same."""
