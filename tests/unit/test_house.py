"""The house stays in order: no circles, no giants, and every part is named and described.

A check takes the sources as a table, path → text, and returns what it found, a line each. Beside every check
there is a test that it can fail.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
Sources = Mapping[str, str]

CODE = (".py", ".lua", ".html")
ROOM_MAX_SHARE = 0.25
FILE_MAX_LINES = 450
FUNCTION_MAX_LINES = 60
JOB_MAX_LINES = 120
PAGE_MAX_LINES = {"README.md": 200, "infra/notes/guarantee.md": 100}
ENTRY_MAX_LINES = 5

#: Rooms in which every public function has a docstring.
DESCRIBED = ("core", "stream", "adapters", "model", "training")

#: What may be larger than the limits: `path` or `path:function`, and why.
EXCEPTIONS: dict[str, str] = {}


# The sources


def read_sources() -> dict[str, str]:
    """The text of each file of code in `tagstream/`, `serve/` and `jobs/`; of a data file the name alone."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text() if path.suffix in CODE else ""
        for folder in ("tagstream", "serve", "jobs")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and "bundled" not in path.parts
    }


def python_files(sources: Sources) -> Iterator[tuple[str, ast.Module]]:
    yield from ((path, ast.parse(text)) for path, text in sources.items() if path.endswith(".py"))


def room_of(path: str) -> str | None:
    """`core` for tagstream/core/ports.py; None for a file outside of tagstream/ or at its root."""
    parts = PurePosixPath(path).parts
    return parts[1] if parts[0] == "tagstream" and len(parts) > 2 else None


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


# Imports


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(body: Collection[ast.stmt], *, lazy: bool) -> Iterator[ast.stmt]:
    """All statements that run when a module is imported; with `lazy`, those inside its functions too."""
    for node in body:
        if is_type_checking(node) or (isinstance(node, Function) and not lazy):
            continue
        yield node
        inner = (getattr(node, field, []) for field in ("body", "orelse", "finalbody", "handlers"))
        for nodes in inner:
            yield from statements(nodes, lazy=lazy)


def imported(tree: ast.Module, modules: Collection[str], *, lazy: bool = False) -> set[str]:
    """Which of `modules` a file imports, types alone excepted."""
    found: set[str] = set()
    for node in statements(tree.body, lazy=lazy):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(modules) or {node.module}
    return found & set(modules)


def circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """One circle of `graph` as a line, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" → ".join(reversed(error.args[1]))]
    return []


def import_circles(sources: Sources) -> list[str]:
    modules = {module_of(path): tree for path, tree in python_files(sources)}
    return circle({name: imported(tree, modules) - {name} for name, tree in modules.items()})


def room_circles(sources: Sources) -> list[str]:
    """Rooms of tagstream/ that import each other, be it inside a function."""
    files = dict(python_files(sources))
    rooms = {module_of(path): room for path in files if (room := room_of(path)) is not None}
    graph: dict[str, set[str]] = {}
    for path, tree in files.items():
        if (room := room_of(path)) is not None:
            reached = {rooms[name] for name in imported(tree, rooms, lazy=True)}
            graph.setdefault(room, set()).update(reached - {room})
    return [f"tagstream/{found}" for found in circle(graph)]


# Sizes


def large_rooms(sources: Sources) -> list[str]:
    lines: Counter[str] = Counter()
    for path, text in sources.items():
        if path.startswith("tagstream/"):
            lines[room_of(path) or "."] += len(text.splitlines())
    total = sum(lines.values())
    return [
        f"tagstream/{room}/: {count} of {total} lines"
        for room, count in lines.items()
        if count > ROOM_MAX_SHARE * total
    ]


def long_files(sources: Sources) -> list[str]:
    found = []
    for path, text in sources.items():
        limit = JOB_MAX_LINES if path.startswith("jobs/") else FILE_MAX_LINES
        count = len(text.splitlines())
        if count > limit and path not in EXCEPTIONS:
            found.append(f"{path}: {count} lines, {limit} allowed")
    return found


def long_functions(sources: Sources) -> list[str]:
    found = []
    for path, tree in python_files(sources):
        for node in functions(tree):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > FUNCTION_MAX_LINES and f"{path}:{node.name}" not in EXCEPTIONS:
                found.append(f"{path}:{node.lineno} {node.name}: {count} lines, {FUNCTION_MAX_LINES} allowed")
    return found


# Names and descriptions


def named_in(docstring: str, files: Collection[str]) -> list[str]:
    """The files that a room's docstring lists: lines after the first, `name  what it is`."""
    names = []
    for line in docstring.splitlines()[1:]:
        name, gap = match.groups() if (match := re.match(r"\s*(\S+)(\s*)", line)) else ("", "")
        if len(gap) >= 2 or name in files:
            names.append(name)
    return names


def wrong_listings(sources: Sources) -> list[str]:
    """Files that a room's `__init__.py` does not name, and names of which there is no file.

    A Python file goes by its stem, another file by its whole name. A room inside it may be named: `kafka/`.
    """
    found = []
    for path, text in sources.items():
        folder = path.removesuffix("/__init__.py")
        if folder == path or room_of(path) is None:
            continue
        below = [name.removeprefix(folder + "/") for name in sources if name.startswith(folder + "/")]
        files = {name.removesuffix(".py") for name in below if "/" not in name} - {"__init__"}
        inner = {name.split("/")[0] + "/" for name in below if "/" in name}
        named = named_in(ast.get_docstring(ast.parse(text)) or "", files)
        found += [f"{path} does not name {name}" for name in sorted(files - set(named))]
        found += [f"{path} names {name}, which is not there" for name in named if name not in files | inner]
        found += [f"{path} names {name} twice" for name, times in Counter(named).items() if times > 1]
    return found


def public_functions(tree: ast.Module) -> Iterator[Function]:
    """A module's public functions, and the public methods of its public classes."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for body in (tree.body, *(node.body for node in classes)):
        yield from (node for node in body if isinstance(node, Function) and not node.name.startswith("_"))


def is_excused(node: Function) -> bool:
    """Whether the name says it all.

    That is a stub (`...`), as in a protocol or an overload, or a body of one statement on one or two lines: a
    property that returns a field, a method that passes a call on to a documented one.
    """
    if len(node.body) > 1:
        return False
    statement = node.body[0]
    return (statement.end_lineno or statement.lineno) - statement.lineno < 2


def missing_docstrings(sources: Sources) -> list[str]:
    return [
        f"{path}:{node.lineno} {node.name} has no docstring"
        for path, tree in python_files(sources)
        if room_of(path) in DESCRIBED
        for node in public_functions(tree)
        if ast.get_docstring(node) is None and not is_excused(node)
    ]


def empty_docstrings(sources: Sources) -> list[str]:
    return [
        f"{path}: an empty docstring"
        for path, tree in python_files(sources)
        for node in ast.walk(tree)
        if isinstance(node, Function | ast.ClassDef | ast.Module)
        and (text := ast.get_docstring(node, clean=False)) is not None
        and len(text.strip(" .\n")) < 3
    ]


# The README's tree


def tree_of(readme: str) -> set[str]:
    """The paths that the README's tree names: a line each, `name  what it is`, indented below its folder."""
    section = readme.split("## The tree", 1)[-1].split("\n## ", 1)[0]
    found: set[str] = set()
    above: list[tuple[int, str]] = []
    for line in section.splitlines():
        if (match := re.match(r"(    +)(\S+)(?:  |$)", line)) is None:
            continue
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        path = (above[-1][1] if above else "") + match[2]
        found.add(path)
        if path.endswith("/"):
            above.append((depth, path))
    return found


def tree_differences(readme: str, sources: Sources) -> list[str]:
    """Rooms and root files of tagstream/ that the README's tree lacks, and those that it names in vain."""
    there = {f"tagstream/{room}/" for path in sources if (room := room_of(path)) is not None}
    there |= {path for path in sources if path.startswith("tagstream/") and path.count("/") == 1}
    there -= {"tagstream/__init__.py"}
    named = {path for path in tree_of(readme) if path.startswith("tagstream/")}
    named -= {"tagstream/", "tagstream/bundled/"}
    lacking = [f"README.md: the tree lacks {path}" for path in sorted(there - named)]
    return lacking + [
        f"README.md: the tree names {path}, which is not there" for path in sorted(named - there)
    ]


# The notes


def dead_links(page: str, markdown: str, exists: Callable[[str], bool]) -> list[str]:
    """Links, and paths in backticks, that a page names in vain. `page`: its own path below the root."""
    folder = PurePosixPath(page).parent
    links = {name.split("#")[0] for name in re.findall(r"\]\(([^)]+)\)", markdown) if "://" not in name}
    paths = re.findall(r"`((?:tagstream|serve|jobs|tests|infra)/[\w./-]*)`", markdown)
    named = {posixpath.normpath(str(folder / link)) for link in links if link} | set(paths)
    return [f"{page} names {name}, which is not there" for name in sorted(named) if not exists(name)]


def long_pages(pages: Mapping[str, str]) -> list[str]:
    """Pages over their limit of lines, and entries of the log over theirs."""
    found = []
    for page, limit in PAGE_MAX_LINES.items():
        if (count := len(pages[page].splitlines())) > limit:
            found.append(f"{page}: {count} lines, {limit} allowed")
    for entry in pages["infra/notes/log.md"].split("\n## ")[1:]:
        title, *body = entry.strip().splitlines()
        if len(body) > ENTRY_MAX_LINES:
            found.append(f"infra/notes/log.md: {title}: {len(body)} lines, {ENTRY_MAX_LINES} allowed")
    return found


# The house as it is


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    found = read_sources()
    assert len(found) > 100, "the sources were not found"
    return found


def assert_none(findings: Collection[str]) -> None:
    assert not findings, "\n" + "\n".join(findings)


def test_no_module_imports_itself_through_others(sources: Sources) -> None:
    assert_none(import_circles(sources))


def test_no_room_imports_itself_through_others(sources: Sources) -> None:
    assert_none(room_circles(sources))


def test_no_room_holds_more_than_a_quarter_of_the_package(sources: Sources) -> None:
    assert_none(large_rooms(sources))


def test_files_are_short_and_jobs_are_shorter(sources: Sources) -> None:
    assert_none(long_files(sources))


def test_functions_are_short(sources: Sources) -> None:
    assert_none(long_functions(sources))


def test_every_room_names_its_files_and_no_others(sources: Sources) -> None:
    assert_none(wrong_listings(sources))


def test_every_public_function_of_the_engine_is_described(sources: Sources) -> None:
    assert_none(missing_docstrings(sources))


def test_no_docstring_is_empty(sources: Sources) -> None:
    assert_none(empty_docstrings(sources))


def test_the_readme_s_tree_is_the_tree(sources: Sources) -> None:
    assert_none(tree_differences((ROOT / "README.md").read_text(), sources))


def test_what_the_pages_name_is_there() -> None:
    """The log is left out: it tells of files as they were called then."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "infra" / "notes").glob("*.md")]
    for page in sorted(set(pages) - {ROOT / "infra" / "notes" / "log.md"}):
        found = dead_links(
            page.relative_to(ROOT).as_posix(), page.read_text(), lambda name: (ROOT / name).exists()
        )
        assert_none(found)


def test_pages_are_short_and_the_log_s_entries_too() -> None:
    pages = (*PAGE_MAX_LINES, "infra/notes/log.md")
    assert_none(long_pages({page: (ROOT / page).read_text() for page in pages}))


def test_every_exception_is_still_there(sources: Sources) -> None:
    names = {f"{path}:{node.name}" for path, tree in python_files(sources) for node in functions(tree)}
    assert set(EXCEPTIONS) <= names | set(sources)


# Every check can fail


@pytest.mark.parametrize(
    ("first", "second", "is_circle"),
    [
        ("from tagstream.core import b", "import tagstream.core.a", True),
        ("from tagstream.core.b import x", "def f():\n    from tagstream.core.a import y", False),
        ("if TYPE_CHECKING:\n    from tagstream.core.b import X", "import tagstream.core.a", False),
        ("try:\n    import tagstream.core.b\nexcept ImportError: pass", "import tagstream.core.a", True),
    ],
    ids=["two modules", "one inside a function", "one for types alone", "one in a try"],
)
def test_a_circle_of_imports_is_found(first: str, second: str, is_circle: bool) -> None:
    made_up = {"tagstream/core/a.py": first, "tagstream/core/b.py": second}
    assert bool(import_circles(made_up)) == is_circle


def test_a_circle_of_rooms_is_found_even_inside_functions() -> None:
    upward = "def f():\n    from tagstream.model.x import g"
    made_up = {"tagstream/core/a.py": upward, "tagstream/model/x.py": "import tagstream.core.a"}
    assert not import_circles(made_up)
    assert len(room_circles(made_up)) == 1
    assert room_circles(made_up | {"tagstream/core/a.py": ""}) == []


def test_a_room_that_is_too_large_is_found() -> None:
    made_up = {f"tagstream/{room}/a.py": "x = 1\n" * 25 for room in ("core", "stream", "text", "api")}
    assert large_rooms(made_up) == []
    assert large_rooms(made_up | {"tagstream/core/b.lua": "\n"}) == ["tagstream/core/: 26 of 101 lines"]


@pytest.mark.parametrize(("path", "limit"), [("tagstream/core/a.py", 450), ("jobs/a.py", 120)])
def test_a_file_that_is_too_long_is_found(path: str, limit: int) -> None:
    assert long_files({path: "x = 1\n" * limit}) == []
    assert len(long_files({path: "x = 1\n" * (limit + 1)})) == 1


@pytest.mark.parametrize("indent", ["", "    "], ids=["a function", "a method"])
def test_a_function_that_is_too_long_is_found(indent: str) -> None:
    def source(lines: int) -> str:
        body = f"{indent}    x = 1\n" * (lines - 1)
        return ("class C:\n" if indent else "") + f"{indent}def f():\n{body}"

    assert long_functions({"serve/a.py": source(60)}) == []
    assert len(long_functions({"serve/a.py": source(61)})) == 1


@pytest.mark.parametrize(
    ("listing", "wrong"),
    [
        ("ports  what it needs\nput.lua  the script\nkafka/  the broker", 0),
        ("ports  what it needs,\n       in two lines\nput.lua the script", 0),
        ("ports  what it needs", 1),
        ("ports  what it needs\nput.lua  the script\nclock  the time", 1),
        ("ports  what it needs\nput.lua  the script\nports  again", 1),
        ("", 2),
    ],
    ids=["all", "a long line", "one is missing", "one is not there", "one twice", "none"],
)
def test_a_room_that_names_other_files_than_it_has_is_found(listing: str, wrong: int) -> None:
    made_up = {
        "tagstream/core/__init__.py": f'"""The core.\n\n{listing}\n"""',
        "tagstream/core/ports.py": "",
        "tagstream/core/put.lua": "",
        "tagstream/core/kafka/__init__.py": '"""Kafka.\n\nclient  one\n"""',
        "tagstream/core/kafka/client.py": "",
    }
    assert len(wrong_listings(made_up)) == wrong


LONG = "x = 1\n    return x"


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        (f"def f():\n    {LONG}", True),
        (f"async def f():\n    {LONG}", True),
        (f"class C:\n  def f(self):\n    {LONG}", True),
        ("def f():\n    return {\n        1: 2,\n    }", True),
        (f'def f():\n    """It does."""\n    {LONG}', False),
        (f"def _f():\n    {LONG}", False),
        (f"class _C:\n  def f(self):\n    {LONG}", False),
        (f"class C:\n  def __len__(self):\n    {LONG}", False),
        ("class C:\n  def f(self) -> int: ...", False),
        ("class C:\n  @property\n  def f(self):\n    return self._f", False),
    ],
)
def test_a_public_function_without_a_docstring_is_found(source: str, missing: bool) -> None:
    assert bool(missing_docstrings({"tagstream/core/a.py": source})) == missing
    assert missing_docstrings({"tagstream/cli/a.py": source}) == []


@pytest.mark.parametrize("docstring", ["", " ", "...", "."])
def test_an_empty_docstring_is_found(docstring: str) -> None:
    assert empty_docstrings({"serve/a.py": f'def f():\n    """{docstring}"""'})
    assert empty_docstrings({"serve/a.py": f'"""{docstring}"""'})
    assert empty_docstrings({"serve/a.py": '"""What it is."""'}) == []


def test_a_difference_between_the_readme_s_tree_and_the_folders_is_found() -> None:
    made_up = {"tagstream/core/a.py": "", "tagstream/settings.py": "", "tagstream/__init__.py": ""}
    tree = "    tagstream/\n      settings.py  all\n      core/  pure\n    serve/  thin\n"
    right = f"## The tree\n\n{tree}\n## Links\n"
    assert tree_differences(right, made_up) == []
    assert tree_differences(right.replace("core/", "rind/"), made_up) == [
        "README.md: the tree lacks tagstream/core/",
        "README.md: the tree names tagstream/rind/, which is not there",
    ]
    made_up["tagstream/ops/a.py"] = ""
    assert tree_differences(right, made_up) == ["README.md: the tree lacks tagstream/ops/"]
    assert tree_differences("", made_up)


def test_a_page_that_names_what_is_not_there_is_found() -> None:
    page = "[ours](model.md), [above](../../README.md#tree), [theirs](https://kafka.apache.org), `tests/a.py`"
    there = {"infra/notes/model.md", "README.md", "tests/a.py"}
    assert dead_links("infra/notes/x.md", page, there.__contains__) == []
    assert len(dead_links("infra/notes/x.md", page, {"README.md"}.__contains__)) == 2


def test_a_page_or_an_entry_that_is_too_long_is_found() -> None:
    pages = {"README.md": "a\n" * 200, "infra/notes/guarantee.md": "a\n" * 100}
    log = "# Log\n\n## Today\n" + "a\n" * 5
    assert long_pages(pages | {"infra/notes/log.md": log + "\n## Before\na\n"}) == []
    longer = {page: text + "a\n" for page, text in pages.items()}
    assert len(long_pages(longer | {"infra/notes/log.md": log + "a\n"})) == 3
