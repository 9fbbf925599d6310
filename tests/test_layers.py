"""Who may import whom: parsed from every file, nested imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS: dict[str, int] = {
    "errors": 0,
    "randomness": 0,
    "version": 0,
    "crypto": 1,
    "privacy": 1,
    "models": 1,
    "data": 1,
    "wire": 2,
    "protections.base": 2,
    "protections": 3,
    "federated": 3,
    "federated.descriptor": 3,
    "federated.prototypes": 3,
    "federated.pullback": 3,
    "federated.local_training": 3,
    "federated.aggregation": 3,
    "federated.federation": 4,
    "federated.guarantees": 3,
    "federated.gradient_sum": 3,
    "federated.accounts": 4,
    "federated.messages": 4,
    "federated.row_signer": 3,
    "federated.seats": 4,
    "federated.witness": 5,
    "federated.client": 4,
    "federated.server": 4,
    "federated.trips": 4,
    "federated.key_holder": 4,
    "federated.round": 4,
    "transcript": 5,
    "engines": 5,
    "evaluation": 6,
    "secure_sums": 6,
    "reopening": 6,
    "secagg_costs": 6,
    "methods": 6,
    "config": 6,
    "home": 6,
    "audit_gate": 6,
    "checkpoint": 6,
    "run_folder": 6,
    "provenance": 6,
    "simulation": 6,
    "summary": 6,
    "training": 6,
    "report": 6,
    "presets": 6,
    "sweep": 6,
    "sweep_cli": 6,
    "reports_cli": 6,
    "comparison": 6,
    "datasets": 6,
    "assemble": 6,
    "privatise": 6,
    "costs": 6,
    "inspect_ledgers": 6,
    "estimate": 6,
    "runs": 6,
    "terminal": 6,
    "cli": 6,
    "__main__": 6,
}
THIRD_PARTY = {
    "cryptography": {"randomness.py", "crypto/keys.py", "crypto/agreement.py", "crypto/sealed.py"},
    "dp_accounting": {
        "privacy/accounting.py",
        "privacy/amplification.py",
        "privacy/calibrate.py",
        "privacy/events.py",
        "privacy/ledger.py",
        "privacy/selection.py",
        "privacy/skellam.py",
        "protections/gaussian.py",
        "protections/central.py",
        "protections/post_processed.py",
        "protections/distributed.py",
        "federated/aggregation.py",
        "federated/dp_sgd.py",
        "sweep/choosing.py",
    },
    "tenseal": {"crypto/homomorphic.py"},
    "opacus": {"federated/per_sample.py"},
    "pymetis": {"data/partition.py"},
    "torchvision": {"data/vision.py"},
    "torch_geometric": {"data/graph.py", "models/graph.py"},
    "ogb": {"data/graph.py"},
    "optuna": {"sweep/storage.py", "sweep/locks.py", "sweep/study.py", "sweep/opening.py", "sweep/optuna_trials.py"},
    "sqlalchemy": {"sweep/storage.py", "sweep/locks.py", "sweep/attributes.py"},
    "scipy": {"sweep/intervals.py", "data/graph.py", "privacy/skellam.py"},
    "attrs": {"privacy/selection.py", "privacy/skellam.py"},
    "mpmath": {"privacy/selection.py", "privacy/skellam.py"},
    "sklearn": {"data/vision.py", "evaluation.py"},
    "safetensors": {"checkpoint.py"},
    "pydantic": {"config.py"},
    "typer": {"cli.py", "sweep_cli.py", "reports_cli.py"},
    "rich": {"cli.py", "terminal.py", "sweep_cli.py", "reports_cli.py", "sweep/view.py"},
    "matplotlib": {"report/figures.py", "report/sweep_figures.py"},
    "jinja2": {"report/html.py"},
    "markupsafe": {"report/html.py"},
    "yaml": {"sweep/folder.py", "config.py", "run_folder.py"},
}
FREE = {"torch", "numpy", "framp_private", "__future__"}


def files() -> list[Path]:
    return sorted((ROOT / "framp_private").rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            if node.module.startswith("framp_private"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "framp_private").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer_of(module: str) -> int | None:
    while module:
        if module in LAYERS:
            return LAYERS[module]
        module = module.rpartition(".")[0]
    return None


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_lower_layers_never_import_higher_ones(path: Path) -> None:
    module = module_of(path)
    if not module:
        return
    own = layer_of(module)
    assert own is not None, f"{module} has no layer: add it to LAYERS"
    for name in imports(path):
        if name.startswith("framp_private."):
            other = name.removeprefix("framp_private.")
            target = layer_of(other)
            assert target is not None and target <= own, f"{module} (L{own}) imports {other} (L{target})"
            if own == target == 1:
                assert other.split(".")[0] == module.split(".")[0], f"{module} imports its L1 sibling {other}"


def test_there_are_no_import_cycles() -> None:
    known = {module_of(path): path for path in files()}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        found = {name.removeprefix("framp_private.") for name in imports(path)} & set(known)
        packages = {name.rpartition(".")[0] for name in found}  # `from package import module` needs the module only
        graph[module] = found - packages - {module, ""}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*trail, module))
            done.add(module)

    done: set[str] = set()
    for module in graph:
        if module:
            visit(module, ())


def test_each_third_party_package_has_one_home() -> None:
    import sys

    for path in files():
        name = path.relative_to(ROOT / "framp_private").as_posix()
        for imported in imports(path):
            package = imported.split(".")[0]
            if package in FREE or package in sys.stdlib_module_names:
                continue
            assert name in THIRD_PARTY.get(package, set()), f"{name} imports {package}"


def test_nothing_below_the_edge_sees_a_config_object() -> None:
    for path in files():
        module = module_of(path)
        if module and (layer_of(module) or 0) < 6:
            assert not any("framp_private.config" in name for name in imports(path)), module


def test_the_product_never_imports_the_attacks() -> None:
    assert not any(name.startswith("threat_models") for path in files() for name in imports(path))


def test_nobody_unpickles_what_was_received() -> None:
    for path in files():
        name = path.relative_to(ROOT / "framp_private").as_posix()
        found = imports(path)
        assert "pickle" not in found or name == "data/vision.py", name
        assert "torch.load(" not in path.read_text(), name
