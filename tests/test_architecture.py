"""The directions of imports and the promises about files that no other test would notice to be broken."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfyui_version", "folder_paths", "latent_preview", "server", "execution"}
OURS = {"motion_modules", "video", "nodes", "schema", "headless", "weights", "fal", "serve"}
# folder -> parts of the pack that it may import; within itself everything
ALLOWED = {
    "motion_modules": set(),
    "video": set(),
    "schema.py": set(),
    "weights": set(),
    "fal": {"video", "schema"},
    "headless": {"motion_modules", "video", "schema", "weights"},
    "serve": {"headless", "fal", "video", "schema"},
    "nodes": {"motion_modules", "video", "schema", "weights", "fal"},
    "__init__.py": {"nodes"},
    "__main__.py": {"headless", "fal", "serve", "schema"},
}
THIRD_PARTY = {
    "motion_modules": {"torch", "einops", "safetensors", "triton"},
    "video": {"torch", "numpy", "av", "PIL"},
    "schema.py": set(),
    "weights": set(),
    "fal": {"aiohttp", "yarl"},
    "headless": {"torch", "diffusers", "transformers", "tokenizers", "safetensors", "tqdm", "PIL"},
    "serve": {"torch", "aiohttp", "yarl", "fastapi", "starlette", "pydantic", "pydantic_core", "uvicorn", "ray"},
    "__init__.py": set(),
    "__main__.py": set(),
}


def sources(part):
    return [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py"))


def imports(path):
    """(level, module) of every import in a file; `from . import a, b` as one for each name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)


@pytest.mark.parametrize("part", ALLOWED)
def test_arrows_point_down(part):
    for path in sources(part):
        depth = len(path.relative_to(ROOT).parts)  # a level of this many dots is the pack's root
        for level, module in imports(path):
            target = module.split(".")[0]
            if level == depth:
                assert target in ALLOWED[part] | {part.removesuffix(".py")}, f"{path.name} imports {target}"
            if level == 0:
                assert target not in OURS | {"animatediff_turbo"}, f"{path.name} imports {target} absolutely"


def test_the_server_needs_no_ray_where_nobody_asks_for_it():
    program = "import sys, animatediff_turbo.serve.command; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT.parent).returncode == 0


@pytest.mark.parametrize("part", THIRD_PARTY)
def test_only_the_named_packages_are_imported(part):
    for path in sources(part):
        for level, module in imports(path):
            if level == 0:
                target = module.split(".")[0]
                assert target in sys.stdlib_module_names | THIRD_PARTY[part], f"{path.name} imports {target}"


def test_comfyuis_internals_are_in_one_package_only():
    for path in sources("nodes"):
        if "_host" not in path.parts:
            found = {module.split(".")[0] for level, module in imports(path) if level == 0} & HOST
            assert found <= {"comfy_api"}, f"{path.name} imports {found}"


def test_importing_the_pack_does_no_work_and_needs_no_comfyui():
    code = "import sys, animatediff_turbo; print([name for name in ('torch', 'av', 'comfy', 'diffusers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout.strip() == "[]"


def test_the_registrys_fields_are_complete():
    try:
        import tomllib
    except ImportError:  # Python 3.10
        pytest.skip("tomllib came with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["comfy"]["requires-comfyui"] == ">=0.20.0"
    assert project["project"]["name"] == "animatediff-turbo" and not any("torch=" in item or "torch>" in item for item in project["project"]["dependencies"])
    listed = {name.removeprefix("animatediff_turbo").removeprefix(".") for name in project["tool"]["setuptools"]["packages"]}
    assert listed == {""} | {".".join(path.parent.relative_to(ROOT).parts) for part in ("motion_modules", "video", "nodes", "headless", "weights", "fal", "serve") for path in (ROOT / part).rglob("__init__.py")}


def test_every_source_is_readable_on_every_windows():
    for path in ROOT.rglob("*.py"):
        if not {".venv", ".git", "build"} & set(path.relative_to(ROOT).parts):
            path.read_text(encoding="utf-8").encode("cp1252")


def test_no_source_calls_what_comfy_test_forbids():
    """Layers come from the injected operations, devices from ComfyUI; comfy-test reads tests too."""
    forbidden = re.compile(r"\.cuda\(|\.to\(.cuda|torch\.autocast\(|\bnn\.(Linear|Conv\dd|ConvTranspose\dd|LayerNorm|GroupNorm|Embedding)\(")
    for path in ROOT.rglob("*.py"):
        if not {".venv", ".git", "build"} & set(path.relative_to(ROOT).parts) and path != Path(__file__):
            found = forbidden.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.name}: {found and found[0]}"
