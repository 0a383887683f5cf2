"""Clips to TFRecord files: a shard is whole or not there, and can be kept."""
