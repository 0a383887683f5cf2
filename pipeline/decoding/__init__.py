"""Audio file to waveform, in a helper process; damage is found here."""
