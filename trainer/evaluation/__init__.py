"""How good one model is: scores, intervals, calibration and the report folder."""
