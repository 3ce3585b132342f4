"""Order history: the life of every order, derived from the attested events of the stream.

order_status.py defines the statuses and the allowed transitions, order_history.py is the projection, history_store.py
stores its rows in LMDB, history_reader.py reads them, history_run.py connects them with smrx/follower. The package
follows the stream as settlement does, and shares no code with the engine but the helpers that compile functions.
"""
