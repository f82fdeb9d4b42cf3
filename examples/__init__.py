"""Programs that show the lattice at work; `python -m examples.demo` is the first to run."""
