"""Genres of audio files by trained models: `./launch.sh predict`."""
