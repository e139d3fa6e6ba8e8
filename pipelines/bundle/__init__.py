"""The jobs of databricks.yml, run on this machine: python -m pipelines.bundle.

Read in this order: resolve, graph, runner, task_values.
"""
