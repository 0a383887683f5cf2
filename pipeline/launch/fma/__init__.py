"""FMA's archives: what is published where, and fetching it."""
