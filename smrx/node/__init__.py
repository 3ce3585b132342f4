"""One member of the cluster as a process: a reactor around the replica, its sockets, and nothing that blocks."""
