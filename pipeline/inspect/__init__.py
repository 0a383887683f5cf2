"""What is in a finished dataset, and is it right: `python -m pipeline.inspect`."""
