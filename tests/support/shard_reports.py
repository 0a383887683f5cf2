"""A job of two shards and what it says of each."""

from pipeline.common.clip_config import ClipConfig
from pipeline.inputs.metadata import MetadataConfig
from pipeline.inputs.splits import SplitConfig
from pipeline.job.config import JobConfig
from pipeline.schema import SPLITS, ShardFile, shard_file
from pipeline.shards.result import DatasetConfig, ShardReport


def make_config(output, **changes) -> JobConfig:
    dataset = DatasetConfig(
        output=str(output),
        representations=("windows", "mel"),
        clip=ClipConfig(windows_per_clip=2, mel_images_per_clip=1),
        genres=("High", "Low"),
        num_shards=2,
    )
    values = {
        "audio": "**.mp3",
        "metadata": MetadataConfig(path="tracks.csv"),
        "metadata_kind": "plain",
        "split": SplitConfig(rule="hash"),
        "dataset": dataset,
        "max_reject_ratio": 0.5,
        "versions": {"numpy": "2"},
    }
    return JobConfig(**(values | changes))


def make_shard_report(shard: int, split: str = "training", digest="d") -> ShardReport:
    records = {
        ("windows", split): 4,
        ("windows", "test"): 2,
        ("mel", split): 2,
        ("mel", "test"): 1,
    }
    return ShardReport(
        shard=shard,
        kept=shard == 1,
        clips={(split, "Low"): 2, ("test", "High"): 1},
        clip_totals={split: 2, "test": 3 if split == "test" else 1},
        records=records,
        files={
            shard_file(name, split, shard, 2): ShardFile(
                records=records.get((name, split), 0),
                size=10 * records.get((name, split), 0),
                crc32c=f"{shard:08x}",
            )
            for name in ("windows", "mel")
            for split in SPLITS
        },
        decoders={"libsndfile": 3},
        decode_ms=[10.0, 20.0, 30.0],
        compute_ms=[1.0, 2.0, 3.0],
        digest=digest,
    )
