"""Windows: what people look through. The command line and the demo; built on zmreg's public names."""
