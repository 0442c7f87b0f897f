"""A cluster within one process: the real node, workers and driver, on threads and without sockets."""
