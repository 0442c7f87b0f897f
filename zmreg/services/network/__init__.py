"""A node among nodes: joining and leaving, letters, objects fetched, and whose word counts on who is dead."""
