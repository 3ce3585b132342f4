"""The protocols, sans I/O: bytes to records and back, and the session state machine."""
