"""`zmreg demo`: a search engine over Python's own standard library.

Read it in this order: `words` (text -> words), `segment` (files -> one partial index in one buffer), `ranking` (a shard
of partial indexes answers queries), `search` (the same two as a zmreg task and a zmreg actor), `report` (what is
printed), `run` (the whole evening). Everything but `search` and `run` is plain Python that knows nothing of zmreg.
"""
