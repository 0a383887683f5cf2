"""TFRecords to genre classifiers, compared on held-out tracks.

The folders, lowest layer first (imports point down):

    config      parameters of a training run
    data        a dataset's TFRecords to batches
    evaluation  how good one model is: scores and its report folder
    runtime     what the machine gives and takes: devices, checkpoints, signals
    training    one training run, and the Keras models (`networks`)
    task        its command line
    baselines   scikit-learn's classifiers: `./launch.sh baselines`
    folds       cross-validation: `./launch.sh folds`
    compare     all models side by side, in text and HTML: `./launch.sh compare`
    predict     genres of audio files: `./launch.sh predict`, `./launch.sh label`
    app         a page for dropped songs: `./launch.sh app`
    export      a model for serving: `./launch.sh export`
    vertex      training on Vertex AI: `./launch.sh vertex`

A new network goes to `training/networks`, a new score to `evaluation`, a new classifier
of scikit-learn to `baselines`.
"""
