"""Around a job: plan, cost, output folder, runner of this machine, messages."""
