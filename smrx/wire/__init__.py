"""The protocols between processes, sans I/O: records, codes, frames, admin messages, state images."""
