"""The host process: engine, instances, capabilities, linking, serving, orders."""
