"""The consumer's side of the event feed: what was lost is seen, asked for again, and put back in its place."""
