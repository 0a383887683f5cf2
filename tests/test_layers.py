"""The folders are layers: imports point down, and never in a circle."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Lowest first. What stands in one line may not import each other; a folder that is
#: not here fails the test.
LAYERS = (
    {"pipeline.schema"},
    {"pipeline.common"},
    {"pipeline.inputs", "pipeline.decoding", "pipeline.representations"},
    {"pipeline.shards", "pipeline.show", "pipeline.demo"},
    {"pipeline.job", "pipeline.inspect"},
    {"pipeline.launch"},
    {"pipeline.preprocess"},
    {"pipeline.cloud"},
    {"trainer.config", "trainer.data", "trainer.evaluation"},
    {"trainer.runtime"},
    {"trainer.training", "trainer.predict"},
    {"trainer.baselines", "trainer.compare", "trainer.export"},
    {"trainer.folds"},
    {"trainer.task"},
    {"trainer.vertex", "trainer.app"},
)
FLOORS = {name: floor for floor, names in enumerate(LAYERS) for name in names}

#: What training, which runs where Beam and librosa are not, takes of the pipeline.
LIGHT = {
    "pipeline.schema",
    "pipeline.schema.checks",
    "pipeline.schema.example",
    "pipeline.common",
    "pipeline.common.credentials",
    "pipeline.common.files",
    "pipeline.common.owned_kinds",
    "pipeline.common.ownership",
    "pipeline.common.plain_text",
    "pipeline.common.progress",
    "pipeline.common.progress.command_line",
    "pipeline.common.quiet",
    "pipeline.common.regular_file",
}
#: Folders of the trainer that decode audio, and so take more of the pipeline.
AUDIO = {"trainer.predict", "trainer.export", "trainer.compare", "trainer.app"}
#: What needs Beam, and the one part of the trainer that imports it.
BEAM = {"pipeline.shards", "pipeline.job", "pipeline.launch", "pipeline.cloud"}
LABELLING = "trainer.predict.label"
#: What the package's extras bring, apart from Beam and Google's clients.
EXTRAS = {
    "ai_edge_litert",
    "onnx",
    "onnxruntime",
    "optuna",
    "tensorboard",
    "tf2onnx",
    "wandb",
}


def find_modules() -> dict[str, Path]:
    files = [
        file for top in ("pipeline", "trainer") for file in ROOT.glob(f"{top}/**/*.py")
    ]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        ): file
        for file in files
    }


def read_imports(file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Modules of the project that a file names, in functions and for types too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name:
                yield name


def entry(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    modules = find_modules()
    return {
        module: set(read_imports(file, modules)) - {module}
        for module, file in modules.items()
    }


def test_every_folder_has_its_layer(imports):
    entries = {entry(module) for module in imports} - {"pipeline", "trainer"}
    assert entries == set(FLOORS)


def test_imports_point_down(imports):
    upward = [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name in names
        if entry(module) != entry(name)
        and FLOORS.get(entry(name), 99) >= FLOORS.get(entry(module), -1)
    ]
    assert not upward


def test_no_import_runs_in_a_circle(imports):
    list(graphlib.TopologicalSorter(imports).static_order())


def test_training_takes_only_what_is_light_of_the_pipeline(imports):
    heavy = [
        f"{module} imports {name}"
        for module, names in imports.items()
        for name in names
        if module.startswith("trainer")
        and name.startswith("pipeline")
        and entry(module) not in AUDIO
        and name not in LIGHT
    ]
    # Vertex AI's client is for the machine of who submits.
    assert [line for line in heavy if not line.startswith("trainer.vertex")] == []


def test_labelling_alone_of_the_trainer_takes_what_needs_beam(imports):
    users = {
        module
        for module, names in imports.items()
        if module.startswith("trainer") and BEAM & set(map(entry, names))
    }
    allowed = {name for name in users if name.startswith(LABELLING)}
    assert allowed
    # Vertex AI's client is for the machine of who submits.
    assert {name for name in users - allowed if "vertex" not in name} == set()


def test_the_pipeline_never_imports_the_trainer(imports):
    assert not [
        module
        for module, names in imports.items()
        if module.startswith("pipeline")
        and any(name.startswith("trainer") for name in names)
    ]


def test_folders_are_small_and_say_what_they_are_for():
    for top in ("pipeline", "trainer"):
        folders = [ROOT / top, *(ROOT / top).rglob("*/")]
        for folder in folders:
            if folder.name == "__pycache__":
                continue
            names = [
                path.name
                for path in folder.iterdir()
                if path.name not in ("__pycache__", "__init__.py", "py.typed")
            ]
            assert len(names) <= 13, folder
            if (folder / "__init__.py").exists():
                text = ast.get_docstring(
                    ast.parse((folder / "__init__.py").read_text())
                )
                assert text, f"{folder} does not say what it is for"


def test_no_file_is_long():
    for module, file in find_modules().items():
        assert len(file.read_text().splitlines()) <= 400, module


def test_tests_share_through_support_alone():
    shared = [
        f"{file.relative_to(ROOT)} imports {node.module}"
        for file in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        and re.match(r"tests\..*\btest_", node.module or "")
    ]
    assert shared == []


def test_what_extras_bring_is_imported_where_it_is_asked_for():
    early = [
        f"{module} imports {name}"
        for module, file in find_modules().items()
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
        if name.partition(".")[0] in EXTRAS
    ]
    assert early == []
