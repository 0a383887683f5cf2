"""Training as a custom job of Vertex AI: `python -m trainer.vertex`."""
