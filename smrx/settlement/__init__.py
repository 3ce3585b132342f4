"""The verifier outside the cluster: proves that nothing is missing from the event feed and keeps the books from it."""
