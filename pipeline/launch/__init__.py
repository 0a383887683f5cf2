"""Around a job: plan, cost, output folder, runner of this machine, messages.

`set_up`, `environment` and `indexes` make the environment that launch.sh runs in;
`commands` are the names by which it runs things.
"""
