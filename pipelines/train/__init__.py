"""From gold.reviews at one version to a trained model.

Read in this order: training, loop, lexical, evaluation; then ranks, launch, mlflow_log, figures.
"""
