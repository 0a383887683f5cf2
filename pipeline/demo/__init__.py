"""A synthetic corpus in FMA's layout: `./launch.sh demo`."""
