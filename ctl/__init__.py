"""Control client and command line. Knows the lattice, not the node."""
