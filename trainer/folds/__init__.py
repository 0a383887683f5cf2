"""Cross-validation of a small dataset: `./launch.sh folds`."""
