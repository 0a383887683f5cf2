"""What the machine gives and takes: devices, processes, checkpoints, signals."""
