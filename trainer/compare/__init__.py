"""Models side by side, in text and HTML: `./launch.sh compare`."""
