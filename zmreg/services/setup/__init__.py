"""Before and around a cluster: settings, keys, finding one, starting nodes, and looking from outside."""
