"""gold.reviews at one version -> a trained model.

Read in this order: settings, device, training, tokens, encoder, loop, lexical, evaluation,
mlflow_log, figures, environment; then, for training in several processes: ranks, launch,
rank_process.
"""
