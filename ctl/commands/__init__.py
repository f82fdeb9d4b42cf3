"""One module per noun; each command is a thin layer over `ctl.client.ControlClient`."""
