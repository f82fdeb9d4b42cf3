"""What makes calls of components, beside links and clients."""
