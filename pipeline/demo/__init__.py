"""A synthetic corpus in FMA's layout: `python -m pipeline.demo`."""
