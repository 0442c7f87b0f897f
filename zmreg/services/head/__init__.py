"""The head: actors and their names, jobs, and the ledger that outlives it."""
