"""Training as a custom job of Vertex AI: `./launch.sh vertex`."""
