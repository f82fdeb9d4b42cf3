"""What the product promises in figures, each measured beside its alternative: `python -m benchmarks`."""
