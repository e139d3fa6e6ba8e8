"""MLflow: runs and registered models.

Read in this order: store, runs, model_files, registry, model_table.
"""
