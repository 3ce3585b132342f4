"""Stream connections that a process drives from its own loop: frames, bounds, TLS, proof of keys, one epoll.

Used by the links of members, by order entry over TCP and by gateways. Knows nothing of what the frames say.
"""
