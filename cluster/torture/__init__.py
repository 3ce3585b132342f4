"""Clusters of real processes that are broken in every way there is, and judged: `python -m cluster torture`.

An ordeal (ordeal.py) has a field of nodes whose links can be cut (field.py, proxies.py), traders (trader.py), a
verifier (bookkeeper.py), a nemesis with a plan (nemesis.py, caretaker.py, plan.py) and a judge (verdict.py) who
hears what everybody said through pipes (streams.py, tap.py).
"""
