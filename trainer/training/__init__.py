"""One training run: steps, epochs, transfer learning, search of parameters."""
