"""smrx: an exchange core that cannot lose an acknowledged order."""
