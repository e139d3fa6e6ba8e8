"""Spark and Delta; the only room that writes tables.

Read in this order: session, catalog, tables, frames, ledger; then staging, snapshot, locks, jars,
delta_errors.
"""
