"""Runs WebAssembly components: compile, convert values, drive calls, keep limits."""
