"""Other order books on our tape: one small adapter a peer, and the comparison that refuses a speed to a wrong book."""
