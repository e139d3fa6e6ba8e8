"""The model, in numpy and torch: no Spark, no Delta.

Read in this order: classifier, predict, backbone, manifest, metrics.
"""
