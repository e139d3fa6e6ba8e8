"""A model's own code: numpy and torch, no Spark, no Delta.

Read in this order: classifier, backbone, manifest, metrics.
"""
