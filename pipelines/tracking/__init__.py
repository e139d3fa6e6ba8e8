"""MLflow: runs and registered models.

Read in this order: runs, registry, model_files, model_table, unity.
"""
