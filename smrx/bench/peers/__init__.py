"""Other order books on the same tape: an adapter for each peer, and a comparison that rejects wrong fills."""
