"""HTTP from the network to components."""
