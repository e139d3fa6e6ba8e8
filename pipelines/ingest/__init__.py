"""From a delivered file to bronze.reviews.

Read in this order: sources, fetch, archives, decoding, readers, bronze.
"""
