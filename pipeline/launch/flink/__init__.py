"""The job on a Flink cluster: looked at before, submitted, followed, done again."""
