"""Jobs: commands that run once on this node, for a caller that takes their output."""
