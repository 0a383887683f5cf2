"""Genres of audio files by trained models: `python -m trainer.predict`."""
