"""What all processes of a lattice agree on: values, subjects, wire format, state, the plan, the bus."""
