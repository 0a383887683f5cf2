"""Cross-validation of a small dataset: `python -m trainer.folds`."""
