"""One genre a clip, or several: head, loss, scores and thresholds of each."""
