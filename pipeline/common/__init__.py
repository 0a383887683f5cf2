"""What every part may use: storage, owned folders, text of others, rejects."""
