"""The environment that launch.sh runs in: is it whole, made where it is not."""
