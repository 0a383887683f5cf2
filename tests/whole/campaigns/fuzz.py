"""Thousands of damaged audio files through the real way of a clip.

    python -m tests.whole.campaigns.fuzz --files 3000 --seed 1

Each file is read, decoded and computed as a shard's worker does it, in worker
processes that may crash or hang: then the file is noted, and a new worker goes on
behind it. Prints a table; exit code 1 if a file crashed or hung a worker, raised
anything but a reject, or gave records with absurd values. Any file of a campaign
can be made again with `--seed S --only NUMBER`.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.common.plain_text import align
from tests.whole.campaigns import mutations

#: A file that takes longer hangs.
TIME_LIMIT = 20.0
#: Until a worker has imported everything and made its files.
START_LIMIT = 180.0
NAMES = ("windows", "mel", "features")
#: Samples of which a file is compared with its undamaged original, by how many
#: both may be shifted, and how alike they must be.
COMPARED, SHIFT, LIKENESS = 6 * 44_100, 12_000, 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file.

    Attributes:
      number: of the file in the campaign.
      base: what it was made from.
      mutation: what was done to it.
      verdict: `good`, `altered` (accepted, but not the sound of the base), a
        reject's reason, or `CRASH`, `HANG`, `ERROR`, `ABSURD`, `ELSEWHERE` (the
        sound of another place than the middle of the audio that there is).
      message: of the reject or the error.
      seconds: taken.
      memory: resident bytes of the worker afterwards.
    """

    number: int
    base: str
    mutation: str
    verdict: str
    message: str = ""
    seconds: float = 0.0
    memory: int = 0


FAILURES = ("CRASH", "HANG", "ERROR", "ABSURD", "ELSEWHERE")
#: Seconds by which a place may be off, and mutations of which is known what there is.
NEARLY = 0.3
PLACED = ("keep", "pile_tags", "add_cover", "chain", "lie_in_count", "lie_in_xing")


class Tester:
    """Processes files of a campaign in this process."""

    def __init__(self, seed: int, folder: Path) -> None:
        # Imported here, since the campaign's own process needs none of it; all of
        # it, since the first file's time must not pay for it.
        import pipeline.inspect.verify_shard
        import pipeline.shards.shard  # noqa: F401
        from pipeline.common.clip_config import ClipConfig
        from pipeline.decoding.waveform import load_waveform
        from pipeline.representations.spectrum import Workspace
        from pipeline.shards.records import warm_up

        self._seed = seed
        self._config = ClipConfig()
        self._workspace = Workspace()
        self._file = folder / "file"
        self._bases = mutations.make_bases()
        self._sounds = {
            name: load_waveform(_open(data), self._config).samples
            for name, data in self._bases.items()
        }
        self._bases |= mutations.make_silence(3)
        warm_up(NAMES, self._config, self._workspace)

    def test(self, number: int) -> Outcome:
        """Makes a file and sends it the way of a clip."""
        from pipeline.common.rejects import AudioError
        from pipeline.decoding.waveform import load_waveform
        from pipeline.inputs.join import Clip
        from pipeline.shards.records import make_records
        from pipeline.shards.shard import fetch_audio

        base, mutation, data = mutations.choose(self._seed, number, self._bases)
        self._file.write_bytes(data)
        clip = Clip(
            track_id="t",
            artist_id="a",
            labels=(0,),
            split="training",
            path=str(self._file),
            size=len(data),
        )
        started = time.monotonic()
        message = ""
        try:
            with fetch_audio(clip, self._config.excerpt) as file:
                waveform = load_waveform(file, self._config)
            made = make_records(clip, waveform, NAMES, self._config, self._workspace)
        except AudioError as error:
            verdict, message = error.reason.value, str(error)
        else:
            message = self._find_absurd(made.records)
            verdict = "ABSURD" if message else self._compare(base, waveform.samples)
            if not message and mutation.__name__ in PLACED:
                message = find_misplaced(base, mutation.__name__, waveform.samples)
                verdict = "ELSEWHERE" if message else verdict
        return Outcome(
            number=number,
            base=base,
            mutation=mutation.__name__,
            verdict=verdict,
            message=message,
            seconds=round(time.monotonic() - started, 3),
            memory=psutil.Process().memory_info().rss,
        )

    def _find_absurd(self, records: Mapping[str, Sequence[bytes]]) -> str:
        from pipeline.inspect.verify_shard import MAX_SAMPLE, MAX_VALUE
        from pipeline.representations import make_schemas
        from pipeline.schema.example import decode_example

        for name, schema in make_schemas(NAMES, self._config).items():
            limit = MAX_SAMPLE if name == "windows" else MAX_VALUE
            for record in records[name]:
                value = decode_example(schema.fields, record)[schema.value.name]
                peak = np.abs(np.asarray(value, np.float64)).max()
                # Also not if it is no number.
                if not peak <= limit:
                    return f"{name} has {peak:g}"
        return ""

    def _compare(self, base: str, samples: np.ndarray) -> str:
        likeness = find_likeness(samples[:COMPARED], self._sounds[base][:COMPARED])
        return "good" if likeness >= LIKENESS else "altered"


def find_misplaced(base: str, mutation: str, samples: np.ndarray) -> str:
    """What is wrong with where a clip was taken; empty if nothing is.

    Of a file that holds its sound twice, the middle is where the one meets the other.
    """
    if "long" not in base:
        return ""
    begin = (mutations.LONG_SECONDS - 30) / 2
    if mutation == "chain":
        begin = mutations.LONG_SECONDS - 15
    for second in (1.0, 13.0):
        part = samples[round(second * 44_100) :][:8_192]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        hertz = np.argmax(spectrum) * 44_100 / len(part)
        found = (hertz - mutations.LOWEST) / mutations.RISE - 4_096 / 44_100
        if abs(found - begin - second) > NEARLY:
            return f"second {found:.2f}, not {begin + second:.2f}"
    return ""


def find_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two sounds, at the best shift of up to `SHIFT` samples.

    Where the head of an MP3 is damaged, decoders cannot know its delay.
    """
    size = 1 << (len(first) + SHIFT).bit_length()
    spectra = (np.fft.rfft(sound.astype(np.float64), size) for sound in (first, second))
    one, other = spectra
    correlation = np.fft.irfft(one * other.conj(), size)
    best = max(correlation[: SHIFT + 1].max(), correlation[-SHIFT:].max())
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(best / norm) if norm else 0.0


def _open(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def work(seed: int, numbers: Sequence[int]) -> None:
    """A worker: tells on stdout which file it begins, then what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        tester = Tester(seed, Path(folder))
        for number in numbers:
            print(json.dumps({"begins": number}), flush=True)
            print(json.dumps(dataclasses.asdict(tester.test(number))), flush=True)


def supervise(seed: int, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Runs workers one after the other until all files are done."""
    left = collections.deque(numbers)
    while left:
        command = make_command(seed, left)
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, bufsize=0
            )
            try:
                yield from _follow(process, left)
            finally:
                process.kill()
                code = process.wait()
            if left and code != -9:
                # It ended by itself, in the middle of the first file left.
                errors.seek(0)
                tail = errors.read()[-400:].decode(errors="replace").strip()
                verdict = "ERROR" if code > 0 else "CRASH"
                yield _fail(left.popleft(), verdict, f"exit code {code}: {tail}")
            elif left:
                yield _fail(left.popleft(), "HANG", f"over {TIME_LIMIT:g} s")


def make_command(seed: int, left: Sequence[int]) -> list[str]:
    """How to start a worker for files that are left."""
    command = [sys.executable, "-m", "tests.whole.campaigns.fuzz", "--seed", str(seed)]
    return [*command, "--work", f"{left[0]}:{left[-1] + 1}:{_step(left)}"]


def _step(numbers: Sequence[int]) -> int:
    return numbers[1] - numbers[0] if len(numbers) > 1 else 1


def _follow(
    process: subprocess.Popen[bytes], left: collections.deque[int]
) -> Iterator[Outcome]:
    """Yields what a worker reports, until it ends or takes too long."""
    if process.stdout is None:
        raise TypeError("The worker has no output.")
    limit = START_LIMIT
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while left and selector.select(timeout=limit):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            limit = TIME_LIMIT
            message = json.loads(line)
            if "begins" not in message:
                left.popleft()
                yield Outcome(**message)


def _fail(number: int, verdict: str, message: str) -> Outcome:
    return Outcome(
        number=number, base="?", mutation="?", verdict=verdict, message=message
    )


def run(seed: int, files: int, workers: int) -> list[Outcome]:
    """Runs a whole campaign, with a line of progress now and then."""
    outcomes: list[Outcome] = []
    shown = started = time.monotonic()

    def collect(first: int) -> None:
        nonlocal shown
        for outcome in supervise(seed, range(first, files, workers)):
            outcomes.append(outcome)
            if outcome.verdict in FAILURES:
                print(f"{outcome}", flush=True)
            if time.monotonic() - shown > 15:
                shown = time.monotonic()
                rate = len(outcomes) / (shown - started)
                print(
                    f"fuzz: {len(outcomes)} of {files} ({rate:.1f} a second)",
                    flush=True,
                )

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(collect, first) for first in range(workers)]:
            future.result()
    return sorted(outcomes, key=lambda outcome: outcome.number)


def describe(outcomes: Sequence[Outcome]) -> str:
    """The campaign in two tables and some numbers."""
    verdicts = sorted({o.verdict for o in outcomes} - {"good", "altered"})
    rows = []
    for mutation in sorted({o.mutation for o in outcomes}):
        mine = [o for o in outcomes if o.mutation == mutation]
        counts = collections.Counter(o.verdict for o in mine)
        rows.append(_row(mutation, counts))
    rows.append(_row("all", collections.Counter(o.verdict for o in outcomes)))
    reasons = collections.Counter(o.verdict for o in outcomes)
    formats = []
    for base in sorted({o.base for o in outcomes}):
        mine = collections.Counter(o.verdict for o in outcomes if o.base == base)
        formats.append(_row(base, mine))
    header = ["files", "good", "altered", "rejected", "failed"]
    slowest = max(outcomes, key=lambda o: o.seconds)
    early, late = _memory(outcomes)
    failed = sum(o.verdict in FAILURES for o in outcomes)
    return "\n\n".join(
        [
            align(["mutation", *header], rows),
            align(["format", *header], formats),
            align(["verdict", "files"], [[v, str(reasons[v])] for v in verdicts]),
            f"{len(outcomes)} files; {failed} crashed, hung, raised an error or gave "
            "absurd records.\n"
            f"Slowest: file {slowest.number}, {slowest.seconds:.1f} s "
            f"({slowest.base}, {slowest.mutation}).\n"
            f"Memory of the workers: {early:.0f} MB over the second tenth of the "
            f"files, {late:.0f} MB over the last.",
        ]
    )


def _row(name: str, counts: Mapping[str, int]) -> list[str]:
    failed = sum(counts.get(verdict, 0) for verdict in FAILURES)
    accepted = [counts.get(verdict, 0) for verdict in ("good", "altered")]
    total = sum(counts.values())
    numbers = [total, *accepted, total - sum(accepted) - failed, failed]
    return [name, *map(str, numbers)]


def _memory(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Median resident megabytes early and late in a campaign."""
    memory = [o.memory / 1e6 for o in outcomes if o.memory]
    tenth = max(len(memory) // 10, 1)
    return float(np.median(memory[tenth : 2 * tenth] or memory)), float(
        np.median(memory[-tenth:])
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.whole.campaigns.fuzz", allow_abbrev=False
    )
    parser.add_argument("--files", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON lines, one a file")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this file alone")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    if arguments.work:
        work(arguments.seed, range(*map(int, arguments.work.split(":"))))
        return 0
    if arguments.only is not None:
        work(arguments.seed, [arguments.only])
        return 0
    outcomes = run(arguments.seed, arguments.files, arguments.workers)
    print(describe(outcomes))
    if arguments.output:
        lines = [json.dumps(dataclasses.asdict(o)) + "\n" for o in outcomes]
        arguments.output.write_text("".join(lines))
    return any(outcome.verdict in FAILURES for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
