"""A gateway: a process of its own between clients and the leader. It owns no state that matters.

upstream.py is its link to the leader, native/ the first protocol. docs/gateway.md describes both.
"""
