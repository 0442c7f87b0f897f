"""The machine a process runs on: memory, GPUs, descriptors, directories, threads, and packed code."""
