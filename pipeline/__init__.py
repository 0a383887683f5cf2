"""Audio files and their genres to sharded TFRecords.

The way of a clip, and the folders it passes, lowest layer first (imports point down):

    schema           the contract with every reader: manifest, fields, names of files
    common           what every part may use: storage, owned folders, text of others,
                     rejects, parameters of a clip
    inputs           rows of the metadata and audio files, joined to clips
    decoding         file to waveform, in a helper process; is it what it promises
    representations  waveform to arrays
    shards           clips to TFRecord files, whole or not there; leaks taken out
    job              the Beam graph: thin steps around the functions above; workers end
                     with whoever started the job
    inspect          what is in a finished dataset, and is it right
    launch           around a job: plan, cost, output folder, this machine's runner; on
                     a cluster; the environment of launch.sh, its commands, all at once
    preprocess       the command line
    cloud            the same job on Google Cloud Dataflow

`show` draws a file's representations; `demo` makes a synthetic corpus.

A new representation goes to `representations`, a new reason to reject a file to
`decoding`, a new check of a finished dataset to `inspect`.
"""
