"""The gate between challenger and champion.

Read in this order: checks (pure functions), gate (reads models, writes decisions), baseline.
"""
