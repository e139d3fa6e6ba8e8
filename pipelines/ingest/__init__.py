"""From a delivered file to bronze.reviews.

Read in this order: sources, readers, decoding, fetch, archives.
"""
