"""Follow the attested stream: read, retry, fill gaps, write exactly once. Independent of what is derived from it.

What is derived is a Projection, and what compares it with the nodes a PositionCheck (interfaces.py); both are handed
in. The import rules keep the ledger, the books and reports out of this package: settlement is above it.
"""
