"""The job on Google Cloud Dataflow: submitted, looked at before, followed."""
