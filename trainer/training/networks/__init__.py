"""Keras models, from raw records to genre probabilities."""
