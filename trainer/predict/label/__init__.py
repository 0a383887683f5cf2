"""Genres of a catalogue, as a Beam job: `./launch.sh label`.

The folder, lowest layer first:

    config    what to do, and fingerprints of what shapes a shard
    songs     an audio file to its genres, by the same predictor as `predict`
    rows      a song's genres to rows of Parquet and JSONL
    shards    some files' rows: whole, kept after an interruption
    handler   the same for Beam's RunInference: one model a process
    graph     the Beam job, and whether every file is in one place
    complete  its last files
    launch    output folder and messages; `__main__` and `dataflow` are command lines
"""
