"""A dataset's TFRecords to batches: streamed, shuffled, checked."""
