"""Byte streams between two processes of one machine through shared memory: one writer and one reader each."""
