"""The cluster in a browser: `zmreg dashboard`, a process of its own that only looks on.

`door` speaks HTTP and never waits for the cluster longer than for a first copy; `watch` alone asks the cluster, at a
bounded rate however many look on (`copies` says when); `views` makes of copies what a page shows. Nobody unpickles.
"""
