"""The caller's side: from a user's call to its result, for tasks, actors, generators and calls by name."""
