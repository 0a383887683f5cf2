"""What a job is given: rows, splits and audio files, joined to clips."""
