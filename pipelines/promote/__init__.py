"""The gate between challenger and champion.

Read in this order: checks (pure), gate (acts), baseline.
"""
