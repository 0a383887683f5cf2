"""Models side by side, in text and HTML: `python -m trainer.compare`."""
