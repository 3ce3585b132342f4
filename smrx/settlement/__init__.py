"""The verifier outside the cluster: prove that no event is missing, keep double-entry books, store every trade once.

The stream is followed by smrx/follower, which is independent of money. books/ and ledger.py are the books; readers.py,
report.py, reverify.py and log_audit.py read and check what was stored. settlement_run.py connects them.

The books share with the engine the records and enumerations of the protocol (wire/records.py, wire/codes.py) and the
helpers that compile a function (smrx.engine.kernels.jit). They share no other code: every rule is written twice.
"""
