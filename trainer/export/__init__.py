"""A model for serving, its front end inside: `./launch.sh export`."""
