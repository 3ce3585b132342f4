"""Run clusters of real processes under random faults and check what they did: `python -m cluster torture`.

A run (torture_run.py) starts a cluster whose links can be cut (cluster_under_test.py, link_proxies.py), clients that
send orders (workload_client.py) and a verifier (verifier_process.py). A nemesis injects the faults of a plan
(nemesis.py, fault_state.py, fault_plan.py). Nodes and clients record what they do in pipes (record_pipe.py,
applied_entries_pipe.py), and record_check.py checks the records after the run.
"""
