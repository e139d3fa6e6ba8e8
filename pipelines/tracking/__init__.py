"""MLflow: runs and registered models.

Read in this order: names, places, aliases, store, runs, model_files, registry, model_table,
workers, scoring.
"""
