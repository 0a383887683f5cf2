"""The training split's normalisation, by tft."""
