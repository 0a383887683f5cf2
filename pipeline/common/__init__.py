"""What every part of the pipeline may use: storage, rejects, a clip's parameters."""
