"""From a delivered file to bronze.reviews.

Read in this order: sources, files, fetch, archives, compressed, decoding; the readers csv_reader,
json_reader and parquet_reader, which give records; labels, reading, bronze, deliveries, intake.
"""
