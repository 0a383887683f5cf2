"""scikit-learn's classifiers on vectors: `python -m trainer.baselines`."""
