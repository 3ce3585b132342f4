"""Attack clusters of real processes and measure an honest client beside each attack: `python -m cluster siege`.

A run (siege_run.py) starts a cluster with a market (siege_market.py) and an honest client (honest_client.py), which
places and cancels one order at a time. Each attack of the table (attack_table.py) runs in a process of its own
(attack_process.py), while node_watch.py samples the memory and the threads of the nodes. siege_verdict.py compares what
was measured with the bounds that the attack must keep.
"""
