"""scikit-learn's classifiers on vectors: `./launch.sh baselines`."""
