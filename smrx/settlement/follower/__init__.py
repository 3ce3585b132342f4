"""What follows the attested stream: reading, retrying, filling gaps, committing. Knows nothing of money."""
