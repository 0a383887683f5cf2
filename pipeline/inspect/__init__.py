"""What is in a finished dataset, and is it right: `./launch.sh inspect`."""
