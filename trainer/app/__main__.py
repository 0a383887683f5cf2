"""Serves a page on this machine that names the genres of dropped songs."""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import allow_any_text, one_line, print_error
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.schema import UserError
from trainer.compare.serve import HOST, checked_port
from trainer.predict.audio import add_model_flags, check_excerpts

if TYPE_CHECKING:
    from pipeline.decoding.isolation import IsolatedDecoder
    from trainer.app.listen import Listener
    from trainer.predict.protocol import Predictor


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        "app",
        description="Serves a page, to this machine alone: drop a song and see its "
        "genres over time, its mel images and the training set's most similar clips. "
        "Nothing leaves this machine.",
        examples=[
            "app --model models/mel",
            "app --model models/mel --data dataset --audio music",
        ],
    )
    add_model_flags(parser, "model")
    server = parser.add_argument_group("server")
    server.add_argument(
        "--port",
        type=int,
        default=7862,
        metavar="N",
        help="0: any that is free (default: %(default)s)",
    )
    similar = parser.add_argument_group("similar clips")
    similar.add_argument(
        "--data",
        default="",
        metavar="DIR",
        help="dataset that the model was trained on, on this machine: show its most "
        "similar clips",
    )
    similar.add_argument(
        "--audio",
        default="",
        metavar="DIR",
        help="folder of the dataset's audio files, to play the similar clips (default: "
        "where the dataset says that they were)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C; returns the exit code."""
    allow_any_text()
    flags = make_parser().parse_args(argv)
    try:
        check_excerpts(flags.excerpts)
        if flags.audio and not flags.data:
            raise UserError("--audio has the files of --data; give both, or neither.")
        require_credentials(flags.model)
        # Before the models are loaded, which takes a while.
        with checked_port(flags.port), socket.create_server((HOST, flags.port)):
            pass
        run(flags)
    except UserError as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        models = (word for model in flags.model for word in ("--model", model))
        files = ["--audio", "GLOB", "--output", "labels"]
        Reporter().finish("", ["label", *models, *files])
    return 0


def run(flags: argparse.Namespace) -> None:
    """Loads the models and serves the page.

    Raises:
      UserError: a model, the dataset or the port cannot be used.
    """
    import trainer.runtime.quiet  # noqa: F401  (before what imports TensorFlow)
    from pipeline.decoding.isolation import IsolatedDecoder
    from trainer.app.server import AppServer
    from trainer.predict.loading import load_predictors

    predictor = load_predictors(flags.model)
    manifests = list(predictor.sources.values())
    with IsolatedDecoder() as decoder:
        listener = make_listener(predictor, decoder, flags)
        with checked_port(flags.port):
            server = AppServer(
                listener,
                flags.port,
                model=", ".join(Path(folder).name for folder in flags.model),
                synthetic=any(manifest.synthetic for manifest in manifests),
            )
        with server:
            similar = listener.similar
            if similar is not None:
                threading.Thread(target=similar.hear, daemon=True).start()
            print(
                f"http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends it)",
                flush=True,
            )
            try:
                server.serve_forever()
            finally:
                if similar is not None:
                    similar.stop()


def make_listener(
    predictor: Predictor, decoder: IsolatedDecoder, flags: argparse.Namespace
) -> Listener:
    """What listens to songs, warmed up, so that the first is answered at once.

    Raises:
      UserError: the dataset cannot be used with the model.
    """
    from trainer.app.listen import Listener
    from trainer.app.similar import SimilarClips
    from trainer.predict.audio import AudioPredictor
    from trainer.predict.network import Embedder, find_network

    audio = AudioPredictor(predictor, excerpts=flags.excerpts)
    embedder = similar = None
    if flags.data:
        network = find_network(predictor)
        if network is None:
            raise UserError(
                "--data needs a model that is a network, by whose last layer clips are "
                f"compared. Received: {one_line(', '.join(flags.model))}"
            )
        embedder = Embedder(network)
        name = network.representation
        similar = SimilarClips(flags.data, name, embedder, flags.audio)
        made = similar.layout, similar.settings
        if made != (network.manifest.representations[name], network.manifest.settings):
            raise UserError(
                f"--data holds {name} records that were made in another way than those "
                "that the model was trained on; give its own dataset. Received: "
                f"{flags.data}"
            )
    listener = Listener(audio, decoder, embedder=embedder, similar=similar)
    listener.warm_up()
    return listener


if __name__ == "__main__":
    sys.exit(main())
