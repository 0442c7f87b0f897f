"""What is built on tasks and actors, in a room each: requests, pipelines, runs, results, and a kit of shared things."""
