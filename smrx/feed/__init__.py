"""The consumer's side of the event feed: notice missing events, fetch them again, attest by majority.

Frames arrive at `subscriber` (sockets). `sequencer` puts the events of all nodes into one stream: `event_window` holds
them, `gap_detection` notices missing ones and asks for them. `quorum` releases what a majority of the nodes published
alike. Only `subscriber` does I/O.
"""
