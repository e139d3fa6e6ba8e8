"""Spark and Delta; the only room that writes tables.

Read in this order: config, session, own_spark, catalog, tables, merge, commits, frames, changes,
ledger, outputs, chain; then staging, scratch, snapshot, locks, signals, links, delta_log,
delta_errors, jars.
"""
