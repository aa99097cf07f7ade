"""What the documentation shows runs, what it links to exists, and what it counts is what the code has.

- A ```python block runs; the blocks of one page share a namespace, in a folder made by `policyguard init`.
- A line `$ policyguard ...` of a ```console block runs, lines of one page in order, and leaves with 0, or with what its
  comment `# exits with N` says. Verbs that need a job, a key or files of the reader only have their options checked,
  and so has every `policyguard` line of a ```sh or ```bash block.
- A ```yaml block is read by the reader of policies; a page that begins with a Schema loads, a Trust parses.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest
import yaml

from policyguard import errors, exit_codes
from policyguard.attest.trust import parse_trust
from policyguard.cli.group import VERBS, group, run
from policyguard.policy.loader import load
from policyguard.policy.reader import read, read_value

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
OF_THE_READER = (
    "policyguard run ",
    "policyguard approve ",
    "policyguard env",
    "policyguard scan",
    "policyguard manifest",
)
_EXITS = re.compile(r"#\s*exits with (\d+)\s*$")
_RULE = re.compile(r"^\*\*(I\d+)\.\*\* ", re.MULTILINE)
_TEST = re.compile(r"^- `(tests/\S+)::(\w+)`$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of this language on a page."""
    return [text for _, found, text in _BLOCK.findall(page.read_text()) if found == language]


def pages_with(language: str, *, folder: str = "") -> list[Path]:
    return [page for page in PAGES if blocks(page, language) and folder not in page.parts]


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `policyguard init` leaves it, with the test data that some pages read."""
    folder = tmp_path_factory.mktemp("docs") / "lab"
    assert run(["init", str(folder)]) == 0
    (folder / "tests").symlink_to(ROOT / "tests")
    shutil.copy(folder / "requests" / "allowed.json", folder / "request.json")
    (folder / "work").mkdir()
    (folder / "job.yaml").write_text("subject: user:alice\nresource: job:team/vision/run-1\nproperties: {gpus: 8}\n")
    return folder


@pytest.fixture
def folder(initial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    copy = tmp_path / "lab"
    shutil.copytree(initial, copy, symlinks=True)
    monkeypatch.chdir(copy)
    monkeypatch.delenv("POLICYGUARD_CONFIG", raising=False)
    return copy


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("page", pages_with("python"), ids=shown)
def test_python_on_a_page_runs(page: Path, folder: Path) -> None:
    """Every block runs, in order, in one namespace."""
    namespace: dict[str, object] = {"__name__": "docs"}
    for number, text in enumerate(blocks(page, "python"), 1):
        exec(compile(text, f"{shown(page)} block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", pages_with("console"), ids=shown)
def test_commands_on_a_page_run(page: Path, folder: Path) -> None:
    """Every `$ policyguard` line leaves with the code that is said, and prints no traceback."""
    assert run(["compile", "-o", "policies.snapshot"]) == 0
    here = folder
    for line in "".join(blocks(page, "console")).splitlines():
        command = line.removeprefix("$ ")
        if command.startswith("cd "):
            here = here / command.split()[1]
        if not command.startswith("policyguard "):
            continue
        expected = int(match[1]) if (match := _EXITS.search(command)) else 0
        if command.startswith(OF_THE_READER):
            command = command.split(" #")[0].split(" -- ")[0] + " --help"
            expected = 0
        script = f'policyguard() {{ "{sys.executable}" -m policyguard "$@"; }}\n{command}'
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        ended = subprocess.run(
            ["bash", "-c", script], cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (expected, False), f"{command}\n{ended.stderr}"


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `policyguard` line of a page, in blocks that are not run as well."""
    text = "\n".join(text for language in ("sh", "bash", "console") for text in blocks(page, language))
    for line in text.replace("\\\n", " ").splitlines():
        if "policyguard " not in line:
            continue
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        if "policyguard" in words:
            words = words[words.index("policyguard") + 1 :]
            yield list(takewhile(lambda word: word.strip("();<>|&"), words))


def check_options(words: list[str]) -> None:
    """Parse a command line by click, without running it; raise if a verb or an option does not exist."""
    command: click.Command | None = group
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command, words = command.get_command(click.Context(command), words[0]), words[1:]
    assert command is not None, f"no such verb before {words}"
    if command.name != "hook":
        command.make_parser(click.Context(command)).parse_args(list(words))


@pytest.mark.parametrize("page", [page for page in PAGES if list(command_lines(page))], ids=shown)
def test_commands_on_a_page_have_their_options(page: Path) -> None:
    """Also of a command that needs a file of the reader, verb and options exist, and no value is missing."""
    for words in command_lines(page):
        try:
            check_options(words)
        except click.UsageError as problem:
            pytest.fail(f"policyguard {shlex.join(words)}: {problem.message}")


def test_an_option_that_a_page_invents_is_noticed() -> None:
    """The twin: one letter decides."""
    check_options(["audit", "verify", "--log", "audit.db"])
    with pytest.raises(click.UsageError):
        check_options(["audit", "verify", "--lag", "audit.db"])


@pytest.mark.parametrize("page", pages_with("yaml", folder="lint"), ids=shown)
def test_yaml_on_a_page_is_valid(page: Path) -> None:
    """Policy documents are readable, and load where the page brings its own schema; a Trust parses."""
    documents = []
    for number, text in enumerate(blocks(page, "yaml"), 1):
        if "kind: Trust" in text:
            parse_trust(read_value(text.encode(), shown(page)))
            continue
        assert read(text.encode(), f"{shown(page)} block {number}")
        if text.startswith("apiVersion:"):
            documents.append(text)
    if any("kind: Schema" in text for text in documents):
        load({f"{number}.yaml": text.encode() for number, text in enumerate(documents)})


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of ours resolves, and every anchor names a heading."""
    text = _BLOCK.sub("", page.read_text())
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in {slug(line) for line in there.read_text().splitlines() if line.startswith("#")}, target


def slug(heading: str) -> str:
    """Return the anchor that mkdocs gives a heading."""
    text = re.sub(r"[^\w\s-]", "", heading.lstrip("#").strip().lower())
    return re.sub(r"[\s]+", "-", text.strip())


def navigated(entry: object) -> Iterator[str]:
    """Return every file that a mkdocs nav names."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for each in entry.values():
            yield from navigated(each)
    elif isinstance(entry, list):
        for each in entry:
            yield from navigated(each)


class SiteLoader(yaml.SafeLoader):
    """Reads `mkdocs.yml`, whose `!!python/name:` tags only mkdocs resolves."""


SiteLoader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)


def test_the_navigation_names_files_that_exist() -> None:
    """Every page of the nav is there, and every page at the top of docs is in the nav."""
    named = set(navigated(yaml.load((ROOT / "mkdocs.yml").read_text(), SiteLoader)["nav"]))
    assert {name for name in named if not (ROOT / "docs" / name).is_file()} == set()
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= named


def test_the_tables_of_exit_codes_have_every_code() -> None:
    """The README has all of them; a hook has those that it can end with."""
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    readme, hook = (
        {
            int(code)
            for code in re.findall(r"^\| (\d+) \|", (ROOT / page).read_text().partition("| exit code |")[2], re.M)
        }
        for page in ("README.md", "docs/hooks/stdio.md")
    )
    assert codes == readme
    assert codes - {exit_codes.FINDINGS, exit_codes.USAGE} == hook


DECISIONS = re.findall(
    r"^\$ policyguard (decide [^\n#]+?) *(?:#[^\n]*)?\n```\n\n```text\n(.*?)^```",
    (ROOT / "README.md").read_text(),
    re.M | re.S,
)


@pytest.mark.parametrize(("command", "listed"), DECISIONS, ids=[command for command, _ in DECISIONS])
def test_the_readme_shows_what_a_decision_prints(
    command: str, listed: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line under a `decide` is a line of its output, in this order; `...` means that lines are left out."""
    run(command.split())
    printed = iter(capsys.readouterr().out.splitlines())
    for line in listed.splitlines():
        assert line.strip() == "..." or line in printed, line


def test_the_readme_shows_decisions() -> None:
    """The pattern above still finds them: one that allows, one that denies."""
    assert [text.split()[0] for _, text in DECISIONS] == ["ALLOW", "DENY"]


def test_the_readme_lists_every_verb() -> None:
    """The table of the README and `policyguard --help` are the same list, in words, too."""
    table = (ROOT / "README.md").read_text().split("<!-- verbs -->")[1].split("<!-- /verbs -->")[0]
    assert re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", table, re.MULTILINE) == list(VERBS.items())


def rules() -> dict[str, list[tuple[str, str]]]:
    """Map each rule of the threat model to the tests listed under it, as (file, name)."""
    parts = _RULE.split((ROOT / "docs" / "threat-model.md").read_text())
    return {number: _TEST.findall(text) for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def sources() -> list[Path]:
    return sorted((ROOT / "policyguard").rglob("*.py"))


def test_every_rule_is_enforced_somewhere_and_every_comment_names_a_rule() -> None:
    """The numbers in the code and those in the threat model are the same, without a gap."""
    numbers = [int(number[1:]) for number in rules()]
    assert numbers == list(range(1, len(numbers) + 1))
    marked = {number for path in sources() for number in re.findall(r"INVARIANTS? I(\d+)", path.read_text())}
    assert sorted(map(int, marked)) == numbers


def test_every_rule_lists_tests_that_exist() -> None:
    """No rule is without a test, and each test named under one is defined in its file."""
    for number, tests in rules().items():
        assert tests, f"{number} lists no test"
        for file, name in tests:
            names = {
                node.name
                for node in ast.walk(ast.parse((ROOT / file).read_text()))
                if isinstance(node, ast.FunctionDef)
            }
            assert name in names, (number, f"{file}::{name}")


ERRORS = sorted(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.PolicyGuardError) and kind is not errors.PolicyGuardError
)


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_raised_and_tested(name: str) -> None:
    """No class of the tree is only drawn: the package raises it, and a test expects it."""
    package = "\n".join(path.read_text() for path in sources())
    assert re.search(rf"\b(raise|family=|return) {name}\b|\b{name}\(", package.replace(f"class {name}(", ""))
    tests = "\n".join(
        path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")) if path != Path(__file__)
    )
    assert re.search(rf"raises\(\(?[\w, ]*\b{name}\b", tests)


OF_SQLITE = {"database is locked", "database disk image is malformed"}
"""Messages of SQLite itself."""


def test_the_errors_that_the_page_of_the_log_explains_are_those_of_the_code() -> None:
    """What a reader searches the page for is what a guard or `audit verify` prints."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "log.md").read_text(), re.MULTILINE)
    messages = [text for row in rows for text in re.findall(r"`([^`]*)`", row) if not text.startswith("policyguard ")]
    source = "".join(path.read_text() for path in (ROOT / "policyguard").rglob("*.py"))
    assert len(messages) > 20
    assert [text for text in messages if text not in source and text not in OF_SQLITE] == []
