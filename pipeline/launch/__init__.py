"""Around a job: plan, cost, output folder, runner of this machine, messages.

`flink` is the same on a cluster; `fma` fetches FMA's archives; `walkthrough` runs all
commands one after the other. `environment` makes what launch.sh runs in; `commands` are
the names by which it runs things.
"""
