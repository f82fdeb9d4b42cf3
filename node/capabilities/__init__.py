"""The guest half of each capability: host functions that a component imports."""
