"""One node of the cluster as a process: the reactor, the replica it drives, and the sockets it serves."""
