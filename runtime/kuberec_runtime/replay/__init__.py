"""The replay check over whole logs: folders of Parquet files, objects of a bucket, Kafka topics; alone or on Ray."""
