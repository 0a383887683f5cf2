"""The page report.html: charts, scores, clips to listen to."""
