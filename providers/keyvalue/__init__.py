"""`lattice:keyvalue`: what stands behind `wasi:keyvalue`, over several kinds of stores."""
