"""All commands one after the other: on the demo corpus, on a subset of FMA."""
