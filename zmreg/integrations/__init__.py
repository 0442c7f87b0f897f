"""Guests: other libraries' interfaces on zmreg. Each module imports its library, and of zmreg public names only."""
