"""The node's daemon: its workers, its store, its leases, and what it answers about itself."""
