"""Bodies: the processes of a cluster. They compose the pure machines with sockets, shared memory and children.

A room for each of them, and for what they have in common: the caller's side of a call is in `calling`, the other in
`worker`, and what both are, a process that holds values and refs, in `seat`; the daemon of a machine in `node`, that
node among others in `network`, what only one of them does in `head`; how all this begins in `setup`, and the machine
below it in `machine`.
"""
