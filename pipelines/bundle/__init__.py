"""Run the jobs of databricks.yml on this machine: python -m pipelines.bundle.

Read in this order: resolve, graph, runner, task_values, check.
"""
