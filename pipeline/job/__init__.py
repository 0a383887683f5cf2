"""The Beam graph: thin steps around functions that know nothing of Beam."""
