"""Bodies: the processes of a cluster. They compose the pure machines with sockets, shared memory and children."""
