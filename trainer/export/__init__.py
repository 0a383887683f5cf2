"""A model for serving, its front end inside: `python -m trainer.export`."""
