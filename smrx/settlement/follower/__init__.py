"""Follow the attested stream: read, retry, fill gaps, write exactly once. Independent of what is derived from it.

What is derived is a Projection, and what compares it with the nodes a PositionCheck (interfaces.py); both are handed in
(settlement_run.py). No module here imports the ledger, the books or a report; tests/test_tidy.py checks that.
"""
