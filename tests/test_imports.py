"""Who may import whom: the architecture as a table, and a check that the code keeps to it.

Imports inside functions and under `if TYPE_CHECKING` count as well.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Module -> what it may import, of ours. `x.*` is every module inside the package x. A module is held to
# the line that names it, else to the line of its package. What a line allows need not be used.
ALLOWED: dict[str, set[str]] = {
    # Foundation
    "nmt": set(),
    "nmt.errors": set(),
    "nmt.files": set(),
    "nmt.partial": {"nmt.errors", "nmt.files"},
    "nmt.interrupt": set(),
    "nmt.metrics_file": set(),
    "nmt.peers": set(),
    "nmt.place": {"nmt.errors"},
    "nmt.ranks": {"nmt.errors", "nmt.peers", "nmt.place"},
    "nmt.device": {"nmt.errors"},
    "nmt.presets": set(),
    "nmt.model_config": set(),
    "nmt.training_config": {"nmt.model_config", "nmt.presets"},
    "nmt.config": {"nmt.model_config", "nmt.training_config"},
    "nmt.idle": {"nmt.config"},
    "nmt.config_mistakes": {"nmt.config", "nmt.errors", "nmt.model_config"},
    "nmt.config_file": {
        *("nmt.config", "nmt.config_mistakes", "nmt.errors", "nmt.idle", "nmt.model_config", "nmt.presets"),
    },
    "nmt.config_reference": {
        *("nmt.config", "nmt.config_file", "nmt.config_mistakes", "nmt.errors", "nmt.model_config"),
        "nmt.presets",
    },
    # Text -> batches. Only preparation knows the configuration.
    "nmt.data": set(),
    "nmt.data.*": {"nmt.data.*", "nmt.errors", "nmt.files"},
    "nmt.data.prepare": {"nmt.data.*", "nmt.errors", "nmt.files", "nmt.config"},
    # Functions of tensors and of text, which know nothing of models or files
    "nmt.loss": {"nmt.fused_loss"},
    "nmt.r_drop": {"nmt.loss"},
    "nmt.fused_loss": {"nmt.kernels", "nmt.products"},
    "nmt.linear": {"nmt.fused_loss", "nmt.kernels"},
    "nmt.short_attention": {"nmt.kernels", "nmt.products"},
    "nmt.search": set(),
    "nmt.kernels": set(),
    "nmt.products": {"nmt.kernels"},
    "nmt.top_k": {"nmt.kernels"},
    "nmt.repetition": {"nmt.search"},
    "nmt.replay": {"nmt.search"},
    "nmt.long_sentences": {"nmt.data.tokenizer"},
    "nmt.beam": {"nmt.repetition", "nmt.search", "nmt.top_k"},
    "nmt.coverage": {"nmt.models.rows"},
    "nmt.patterns": {"nmt.data.tokenizer"},
    "nmt.constraints": {"nmt.data.tokenizer", "nmt.errors", "nmt.patterns", "nmt.search"},
    "nmt.sampling": {"nmt.search", "nmt.top_k"},
    "nmt.bayes_risk": set(),
    "nmt.parallel": set(),
    "nmt.budget": {"nmt.errors", "nmt.models.seam", "nmt.parallel"},
    # Translations -> numbers
    "nmt.metric_set": {"nmt.errors"},
    "nmt.evaluation": {"nmt.errors", "nmt.metric_set"},
    "nmt.significance": {"nmt.evaluation", "nmt.metric_set"},
    "nmt.resampling": {"nmt.evaluation", "nmt.metric_set"},
    "nmt.breakdown": {"nmt.data.*", "nmt.evaluation", "nmt.metric_set", "nmt.resampling"},
    "nmt.sentences": {"nmt.breakdown", "nmt.metric_set"},
    "nmt.comet": {"nmt.errors"},
    "nmt.assessment": {
        *("nmt.breakdown", "nmt.evaluation", "nmt.metric_set", "nmt.resampling", "nmt.results"),
        "nmt.significance",
    },
    "nmt.model_evaluation": {
        "nmt.config",
        *("nmt.checkpoint", "nmt.config_file", "nmt.data.*", "nmt.errors", "nmt.evaluation", "nmt.forced"),
        *("nmt.gold", "nmt.models", "nmt.resampling", "nmt.results", "nmt.text_alignment", "nmt.translator"),
    },
    "nmt.results": {"nmt.errors", "nmt.files"},
    "nmt.optimization": {"nmt.muon", "nmt.named", "nmt.training_config"},
    "nmt.named": set(),
    "nmt.muon": set(),
    "nmt.moving_average": {"nmt.named"},
    "nmt.sums": set(),
    "nmt.tensorboard": {"nmt.errors"},
    # Models. Configuration stops at the package: its modules take plain arguments.
    "nmt.models": {"nmt.models.*", "nmt.model_config"},
    "nmt.models.*": {"nmt.models.*", "nmt.linear"},
    "nmt.models.dropout": {"nmt.kernels", "nmt.products"},
    "nmt.models.packed": {
        *("nmt.kernels", "nmt.linear", "nmt.models.seam", "nmt.models.unrolled", "nmt.products"),
    },
    "nmt.models.unrolled": set(),
    "nmt.models.fast_transformer": {"nmt.models.*", "nmt.kernels", "nmt.products"},
    "nmt.models.buffers": {"nmt.kernels"},
    "nmt.models.rows": set(),
    "nmt.models.positions": {"nmt.models.dropout"},
    "nmt.models.attention": {
        *("nmt.kernels", "nmt.linear", "nmt.short_attention"),
        *("nmt.models.dropout", "nmt.models.packed", "nmt.models.parts", "nmt.models.positions"),
        "nmt.models.rows",
    },
    "nmt.models.parts": set(),
    "nmt.models.embeddings": set(),
    # Model folders -> text -> pictures, word links
    "nmt.checkpoint": {
        *("nmt.config", "nmt.config_file", "nmt.errors", "nmt.files"),
        *("nmt.data.prepared", "nmt.data.tokenizer", "nmt.models", "nmt.named"),
    },
    "nmt.parameters": {"nmt.checkpoint", "nmt.models.seam", "nmt.ranks", "nmt.sums"},
    "nmt.sharded": {
        *("nmt.checkpoint", "nmt.models.seam", "nmt.models.transformer", "nmt.parameters", "nmt.ranks"),
    },
    "nmt.decoding": {
        *("nmt.coverage", "nmt.data.*", "nmt.ensemble", "nmt.kernels", "nmt.search"),
        *("nmt.models.fixed_state", "nmt.models.packed", "nmt.models.seam", "nmt.products"),
    },
    "nmt.translator": {
        "nmt.checkpoint",
        "nmt.config",
        "nmt.data.*",
        "nmt.errors",
        "nmt.search",
        *("nmt.models.fast", "nmt.models.seam"),
        "nmt.parallel",
        "nmt.beam",
        "nmt.budget",
        "nmt.decoding",
        *("nmt.elsewhere", "nmt.ensemble"),
        *("nmt.constraints", "nmt.coverage", "nmt.patterns"),
        "nmt.kernels",
        *("nmt.long_sentences", "nmt.replay", "nmt.sampling", "nmt.translations"),
    },
    "nmt.translations": {"nmt.bayes_risk", "nmt.data.*", "nmt.search"},
    "nmt.elsewhere": {"nmt.search"},
    "nmt.ensemble": {"nmt.checkpoint", "nmt.data.tokenizer", "nmt.errors"},
    "nmt.forced": {
        "nmt.ensemble",
        "nmt.checkpoint",
        "nmt.data.*",
        "nmt.errors",
        "nmt.loss",
        "nmt.translator",
    },
    "nmt.hypotheses": {"nmt.data.*", "nmt.errors"},
    "nmt.scoring": {
        *("nmt.checkpoint", "nmt.config", "nmt.data.*", "nmt.errors"),
        *("nmt.forced", "nmt.hypotheses", "nmt.search", "nmt.translator", "nmt.coverage"),
    },
    "nmt.heatmap": set(),
    "nmt.head_scores": set(),
    "nmt.attention_maps": {
        *("nmt.checkpoint", "nmt.data.*", "nmt.ensemble", "nmt.forced", "nmt.translator", "nmt.words"),
    },
    "nmt.page": set(),
    "nmt.attention_page": {
        *("nmt.attention_maps", "nmt.checkpoint", "nmt.data.*", "nmt.errors", "nmt.forced", "nmt.page"),
    },
    "nmt.head_analysis": {
        *("nmt.attention_maps", "nmt.checkpoint", "nmt.data.*", "nmt.errors", "nmt.evaluation", "nmt.forced"),
        *("nmt.head_scores", "nmt.metric_set", "nmt.models.seam", "nmt.models.transformer", "nmt.translator"),
    },
    "nmt.words": {"nmt.data.*"},
    "nmt.gold": {"nmt.data.*", "nmt.errors", "nmt.words"},
    "nmt.symmetrize": set(),
    "nmt.alignment": {
        *("nmt.checkpoint", "nmt.data.*", "nmt.errors", "nmt.forced", "nmt.words"),
    },
    "nmt.text_alignment": {"nmt.alignment", "nmt.gold", "nmt.symmetrize"},
    "nmt.unknown": {
        *("nmt.alignment", "nmt.checkpoint", "nmt.data.*", "nmt.errors", "nmt.search"),
        *("nmt.forced", "nmt.translations", "nmt.words"),
    },
    "nmt.records": {
        *("nmt.checkpoint", "nmt.data.*", "nmt.alignment", "nmt.forced"),
        *("nmt.translations", "nmt.words"),
    },
    # Model folders -> another engine
    "nmt.ctranslate2_model": {
        *("nmt.checkpoint", "nmt.config", "nmt.config_file", "nmt.data.*", "nmt.errors"),
        *("nmt.model_config", "nmt.models.positions"),
    },
    "nmt.ctranslate2_engine": {
        *("nmt.checkpoint", "nmt.config", "nmt.config_file", "nmt.data.*", "nmt.errors", "nmt.search"),
        "nmt.ctranslate2_model",
    },
    "nmt.export": {
        *(
            "nmt.checkpoint",
            "nmt.config",
            "nmt.data.*",
            "nmt.errors",
            "nmt.files",
            "nmt.forced",
            "nmt.search",
        ),
        *("nmt.ctranslate2_engine", "nmt.ctranslate2_model", "nmt.long_sentences", "nmt.translator"),
    },
    # Batches -> model folders
    "nmt.examples": {"nmt.data.*"},
    "nmt.stream": {"nmt.config", "nmt.data.*", "nmt.errors", "nmt.examples"},
    "nmt.changes": {"nmt.config", "nmt.config_file", "nmt.idle", "nmt.training_config"},
    "nmt.run": {
        *(
            "nmt.changes",
            "nmt.checkpoint",
            "nmt.config",
            "nmt.config_file",
            "nmt.errors",
            "nmt.files",
            "nmt.metrics_file",
        ),
    },
    "nmt.validation": {
        *("nmt.config", "nmt.errors", "nmt.data.*", "nmt.examples", "nmt.translator", "nmt.evaluation"),
        *("nmt.ensemble", "nmt.interrupt", "nmt.models.seam", "nmt.ranks"),
    },
    "nmt.gradient": {
        *("nmt.parameters", "nmt.ranks"),
        *(
            "nmt.budget",
            "nmt.data.*",
            "nmt.errors",
            "nmt.guided",
            "nmt.linear",
            "nmt.loss",
            "nmt.models.seam",
            "nmt.precision",
            "nmt.r_drop",
        ),
    },
    "nmt.guided": set(),
    "nmt.nonfinite": {
        *("nmt.data.*", "nmt.errors", "nmt.files", "nmt.gradient", "nmt.keeper", "nmt.progress", "nmt.ranks"),
    },
    "nmt.progress": {"nmt.run", "nmt.stream", "nmt.training_config"},
    "nmt.fingerprints": {"nmt.config", "nmt.data.*", "nmt.ranks"},
    "nmt.continuation": {
        *("nmt.checkpoint", "nmt.config", "nmt.data.*", "nmt.errors", "nmt.fingerprints", "nmt.progress"),
        *("nmt.ranks", "nmt.run", "nmt.training_config"),
    },
    "nmt.fine_tuning": {
        *("nmt.checkpoint", "nmt.config", "nmt.config_file", "nmt.continuation", "nmt.data.*", "nmt.errors"),
        *("nmt.model_config", "nmt.run"),
    },
    "nmt.averaging": {"nmt.checkpoint", "nmt.config_file", "nmt.errors", "nmt.run"},
    "nmt.resources": {
        *("nmt.config", "nmt.data.*", "nmt.device", "nmt.errors", "nmt.memory", "nmt.precision", "nmt.ranks"),
        "nmt.training_config",
    },
    "nmt.precision": {"nmt.linear"},
    "nmt.memory": set(),
    "nmt.machine": set(),
    "nmt.preflight": {
        "nmt.changes",
        "nmt.config",
        "nmt.data.*",
        "nmt.models",
        "nmt.named",
        "nmt.optimization",
        "nmt.precision",
        "nmt.stream",
        "nmt.training_config",
    },
    "nmt.keeper": {
        *("nmt.budget", "nmt.changes", "nmt.checkpoint", "nmt.config", "nmt.data.*", "nmt.errors"),
        *("nmt.progress", "nmt.run"),
    },
    "nmt.training": {
        *("nmt.config", "nmt.errors", "nmt.files", "nmt.data.*", "nmt.stream", "nmt.models"),
        *("nmt.models.recompute", "nmt.optimization", "nmt.checkpoint", "nmt.run", "nmt.validation"),
        *("nmt.device", "nmt.guided", "nmt.interrupt", "nmt.model_config"),
        *(
            "nmt.budget",
            "nmt.continuation",
            "nmt.fine_tuning",
            "nmt.fingerprints",
            "nmt.gradient",
            "nmt.keeper",
            "nmt.moving_average",
            "nmt.nonfinite",
            "nmt.parameters",
            "nmt.precision",
            "nmt.preflight",
            "nmt.progress",
            "nmt.ranks",
            "nmt.resources",
            "nmt.sharded",
            "nmt.tensorboard",
        ),
    },
    # Run folders -> what a report says, then its page
    "nmt.report_runs": {
        *("nmt.checkpoint", "nmt.config", "nmt.config_file", "nmt.data.*", "nmt.errors", "nmt.run"),
    },
    "nmt.report_tests": {"nmt.data.*", "nmt.errors", "nmt.report_runs"},
    "nmt.report_translations": {"nmt.checkpoint", "nmt.files", "nmt.translator"},
    "nmt.report_sentences": set(),
    "nmt.report": {
        *("nmt.alignment", "nmt.errors"),
        *("nmt.assessment", "nmt.checkpoint", "nmt.data.*", "nmt.evaluation", "nmt.forced", "nmt.metric_set"),
        *("nmt.model_evaluation", "nmt.models", "nmt.report_runs", "nmt.report_sentences"),
        *("nmt.report_tests", "nmt.report_translations", "nmt.sentences"),
    },
    "nmt.report_page": {"nmt.page"},
    # Two text files -> a configuration
    "nmt.holdout": {"nmt.data.*", "nmt.errors", "nmt.files"},
    "nmt.profile": {"nmt.data.*"},
    "nmt.advice": {
        *("nmt.config", "nmt.config_file", "nmt.errors", "nmt.data.*", "nmt.holdout", "nmt.profile"),
    },
    # The command line: everything, and the only code that prints
    "nmt.cli": set(),
    "nmt.cli.*": {"nmt.*"},
}
# `nmt --help` is quick because these are imported inside commands.
HEAVY = {"torch", "numpy", "sentencepiece", "pydantic", "matplotlib", "rich", "sacrebleu", "safetensors"}


def find_modules() -> dict[str, Path]:
    """Every module of ours by its name; a package by that of its `__init__`."""
    found = {}
    for folder, package in (("nmt", "nmt"), ("data", "nmt.data"), ("cli", "nmt.cli")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in inner if part != "__init__")])] = path
    return found


MODULES = find_modules()


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that a tree imports, wherever in it. `nmt` itself, which holds the version
    and imports nothing, is everyone's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write it out"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from nmt.data import tokenizer` names a module, `from nmt.models import build_model` does not.
            names = [name if name in MODULES else str(node.module) for name in inner]
        else:
            continue
        yield from (name for name in names if name.startswith("nmt."))


def line_of(module: str) -> set[str] | None:
    package = module.rpartition(".")[0]
    return ALLOWED.get(module, ALLOWED.get(f"{package}.*"))


def is_allowed(module: str, imported: str) -> bool:
    return any(
        imported == allowed or (allowed.endswith(".*") and imported.startswith(allowed[:-1]))
        for allowed in line_of(module) or ()
    )


def test_every_module_has_a_line_and_every_line_a_module() -> None:
    assert [module for module in MODULES if line_of(module) is None] == [], "give it a line in ALLOWED"
    for name in {*ALLOWED, *(name for line in ALLOWED.values() for name in line)}:
        assert name.removesuffix(".*") in MODULES, f"{name} is in ALLOWED and is no module"


def test_modules_import_what_the_table_allows() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, tree in trees().items()
        for imported in dict.fromkeys(imports_of(tree))
        if not is_allowed(module, imported)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "text", "imported"),
    [
        ("nmt.search", "import nmt.models.seam", "nmt.models.seam"),
        ("nmt.search", "from nmt.models import Model", "nmt.models"),
        ("nmt.loss", "def f():\n    from nmt import files", "nmt.files"),
        ("nmt.data.batches", "if TYPE_CHECKING:\n    from nmt.config import Config", "nmt.config"),
        ("nmt.models.transformer", "from nmt.model_config import ModelConfig", "nmt.model_config"),
        ("nmt.training", "from nmt.cli import output", "nmt.cli.output"),
        ("nmt.evaluation", "class C:\n    import nmt.files as f", "nmt.files"),
    ],
)
def test_the_check_sees(module: str, text: str, imported: str) -> None:
    assert list(imports_of(ast.parse(text))) == [imported]
    assert not is_allowed(module, imported)


def test_the_map_in_the_readme_is_whole() -> None:
    """Every module is in it, and what it names is there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Where things are")[1].split("```")[1]
    named = set(re.findall(r"[\w*]+\.py", text))
    folders = [ROOT / name for name in ("data", "nmt", "nmt/models")]
    modules = {path.name for folder in folders for path in folder.glob("*.py")} - {"__init__.py"}
    assert {name for name in modules if not any(fnmatch(name, pattern) for pattern in named)} == set()
    assert {pattern for pattern in named if not any(fnmatch(name, pattern) for name in modules)} == set()


def test_imports_go_round_nowhere() -> None:
    """The table allows neighbours to import each other; the code must do so one way."""
    graph = {module: set(imports_of(tree)) for module, tree in trees().items()}
    while graph:
        leaves = [module for module, imported in graph.items() if not imported & graph.keys()]
        assert leaves, f"these import each other in a circle: {', '.join(sorted(graph))}"
        for module in leaves:
            del graph[module]


def test_only_the_command_line_prints() -> None:
    wrong = []
    for module, tree in trees().items():
        if module.startswith("nmt.cli"):
            continue
        for node in ast.walk(tree):
            prints = isinstance(node, ast.Name) and node.id == "print"
            attribute = node.attr if isinstance(node, ast.Attribute) and is_name(node.value, "sys") else ""
            names = [a.name for a in node.names] if is_import_from(node, "sys") else [attribute]
            if prints or {"stdout", "stderr", "__stdout__", "__stderr__"} & set(names):
                wrong.append(f"{MODULES[module]}:{getattr(node, 'lineno', 0)}")
    assert wrong == []


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_import_from(node: ast.AST, module: str) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == module


def test_modules_do_no_work_when_imported() -> None:
    """At the top of a module stand imports, definitions and constants; `nmt.cli.main` adds the commands."""
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    wrong = []
    for module, tree in trees().items():
        for node in tree.body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_typing = isinstance(node, ast.If) and is_name(node.test, "TYPE_CHECKING")
            registers = module == "nmt.cli.main" and isinstance(node, ast.Expr)
            if not (isinstance(node, definitions) or is_docstring or is_typing or registers):
                wrong.append(f"{MODULES[module]}:{node.lineno}")
    assert wrong == []


@pytest.mark.parametrize("program", ["import nmt.cli.main", "from nmt.cli.main import app; app(['--help'])"])
def test_the_command_line_starts_without_heavy_libraries(program: str) -> None:
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: sys.stderr.write(json.dumps(sorted(sys.modules))))\n" + program
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "typer" in loaded
    assert loaded & HEAVY == set()
