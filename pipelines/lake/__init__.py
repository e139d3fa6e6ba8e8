"""Spark and Delta; the only room that writes tables.

Read in this order: config, session, catalog, tables, frames, ledger; then staging, snapshot, locks,
delta_log, delta_errors, jars.
"""
