"""What is built on tasks and actors: requests and what can be told of them."""
