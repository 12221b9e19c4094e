"""The rules of the house. A rule takes the house and yields what breaks it, one line each: ``path:line: got, wanted``."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from tests.house.sources import FLOORS, House, Module

VALUES = ("identity", "files", "policy", "credit", "trace")
"""Rooms of domain values on the ground floor: they never import each other, nor any conversation."""
LEDGER = "ledger"
"""Stands above the values, which do not know it, and below the conversations."""
CONVERSATIONS = ("auth", "join", "gossip", "exchange", "sync", "control", "cross", "notary", "light", "noise", "yamux")
"""Rooms of conversations: they may import values, never each other."""

DRAWING = (
    *("SystemRandom", "random", "randint", "randrange", "randbytes", "getrandbits", "uniform"),
    *("gauss", "choice", "choices", "sample", "shuffle", "seed"),
)
"""What the random module's own, unseeded generator offers."""

DOORS: dict[str, tuple[str, ...]] = {
    "libp2p": ("node/transport/libp2p/",),
    "multiaddr": ("node/transport/libp2p/",),
    "noise": ("node/transport/libp2p/",),
    "zeroconf": ("node/transport/libp2p/",),
    "lmdb": ("storage/lmdb_engine.py", "benchmarks/chunk_store.py"),
    "cryptography": ("protocols/crypto.py", "protocols/identity/certificates.py"),
    "msgpack": ("protocols/codec.py",),
    "msgspec": ("protocols/codec.py",),
    "argparse": ("node/cli/",),
    "h11": ("node/http/",),
    "trio": ("node/",),
    # the wall clock
    "time.time": ("node/clock.py",),
    "time.time_ns": ("node/clock.py",),
    "time.localtime": ("node/clock.py",),
    "time.gmtime": ("node/clock.py",),
    "time.ctime": ("node/clock.py",),
    "datetime.datetime.now": ("node/clock.py",),
    "datetime.datetime.utcnow": ("node/clock.py",),
    "datetime.datetime.today": ("node/clock.py",),
    "datetime.date.today": ("node/clock.py",),
    # chance: a generator that was seeded and handed in is a value, and the faulty engine takes one; drawing is entropy's
    "random": ("node/entropy.py", "storage/faulty.py"),
    **{f"random.{name}": ("node/entropy.py",) for name in DRAWING},
    "secrets": ("node/entropy.py",),
    "os.urandom": ("node/entropy.py",),
    "os.getrandom": ("node/entropy.py",),
    "uuid.uuid1": ("node/entropy.py",),
    "uuid.uuid4": ("node/entropy.py",),
    "cryptography.x509.random_serial_number": ("node/entropy.py",),
    # threads: started in one place; the engines, which the port lets several threads read, may lock, and the door to msgspec must
    "threading": (
        "node/offload.py",
        "node/transport/libp2p/discovery.py",
        "protocols/codec.py",
        "storage/lmdb_engine.py",
        "storage/memory.py",
    ),
    "threading.Thread": ("node/offload.py", "node/transport/libp2p/discovery.py"),
    "threading.Timer": ("node/offload.py", "node/transport/libp2p/discovery.py"),
    "_thread": ("node/offload.py", "node/transport/libp2p/discovery.py"),
    "concurrent.futures": ("node/offload.py", "node/transport/libp2p/discovery.py"),
    "trio.to_thread": ("node/offload.py", "node/transport/libp2p/discovery.py"),
    "trio.from_thread": ("node/offload.py", "node/transport/libp2p/discovery.py"),
}
"""Outside thing → the files (or folders, ending in a slash) that may use it."""

BANNED_BELOW_THE_ROOF: dict[str, tuple[str, ...]] = {
    "protocols": (
        "time",
        "random",
        "secrets",
        "os",
        "logging",
        "asyncio",
        "trio",
        "socket",
        "select",
        "subprocess",
        "tempfile",
        "shutil",
        "glob",
        "signal",
        "pathlib.Path",
        "io.open",
        "print",
        "open",
        "input",
    ),
    "storage": ("logging", "asyncio", "trio", "socket", "print", "input"),
}
"""What a floor never touches: modules, dotted names and builtins."""

BROAD_EXCEPT_DOORS = (
    "node/transport/libp2p/",
    "node/http/",
    "node/cli/",
    "node/__main__.py",
    "node/supervisor.py",
    "node/offload.py",
    "storage/lmdb_engine.py",
    "protocols/identity/certificates.py",
)
"""Where ``except Exception`` may stand: the doors, which translate whatever comes through."""

NAMELESS_FILES = ("utils.py", "util.py", "misc.py")


def _is_within(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def _is_name(used: str, name: str) -> bool:
    return used == name or used.startswith(name + ".")


def imports_point_down(house: House) -> Iterator[str]:
    """protocols knows nobody above it, storage knows protocols, node knows both; none knows what stands outside."""
    for module in house.modules.values():
        floor = FLOORS.index(module.name.split(".")[0])
        for use in module.imports:
            top = use.name.split(".")[0]
            if top in FLOORS and FLOORS.index(top) > floor:
                yield f"{module.path}:{use.line}: imports {use.name}, which is a floor above"
            elif top in ("tests", "examples", "benchmarks"):
                yield f"{module.path}:{use.line}: imports {use.name}, which stands outside the house"


def no_sideways_imports(house: House) -> Iterator[str]:
    """Conversations never import each other, values never import each other nor a conversation, the base imports no room."""
    rooms = (*VALUES, LEDGER, *CONVERSATIONS)
    for module in house.modules.values():
        if not module.name.startswith("protocols."):
            continue
        room = module.name.split(".")[1]
        for target, line in house.targets(module):
            parts = target.split(".")
            if parts[0] != "protocols" or len(parts) < 2 or parts[1] not in rooms or parts[1] == room:
                continue
            if room in CONVERSATIONS and parts[1] in (*VALUES, LEDGER):
                continue
            if room == LEDGER and parts[1] in VALUES:
                continue
            if room == "registry":
                continue
            yield f"{module.path}:{line}: {room} imports {target} sideways"


def no_cycles(house: House) -> Iterator[str]:
    """Modules form a tree of dependence: no module reaches itself through imports, those for type checking included."""
    edges = {name: sorted({target for target, _ in house.targets(module)}) for name, module in house.modules.items()}
    done: set[str] = set()
    for start in sorted(edges):
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, step = stack.pop()
            if step == 0:
                if name in done:
                    continue
                path.append(name)
                on_path.add(name)
            if step < len(edges[name]):
                stack.append((name, step + 1))
                target = edges[name][step]
                if target in on_path:
                    yield f"{house.modules[name].path}: cycle " + " -> ".join([*path[path.index(target) :], target])
                else:
                    stack.append((target, 0))
            else:
                path.pop()
                on_path.discard(name)
                done.add(name)


def one_user_per_door(house: House) -> Iterator[str]:
    """Each outside thing enters through one place (DOORS)."""
    around = [module for module in house.sources_around if module.path.startswith("benchmarks/")]
    for module in [*house.modules.values(), *around]:
        reported: set[tuple[str, int]] = set()
        for use in module.uses:
            for name, places in DOORS.items():
                if module in around and name != "lmdb":
                    continue
                if _is_name(use.name, name) and not _is_within(module.path, places) and (name, use.line) not in reported:
                    reported.add((name, use.line))
                    yield f"{module.path}:{use.line}: uses {use.name}; the door is {' or '.join(places)}"


def floors_stay_pure(house: House) -> Iterator[str]:
    """No clock, chance, disk, log, print or async on the ground floor; no log, socket or async on the first."""
    for module in house.modules.values():
        floor = module.name.split(".")[0]
        banned = BANNED_BELOW_THE_ROOF.get(floor)
        if banned is None:
            continue
        for use in module.uses:
            if any(_is_name(use.name, name) for name in banned):
                yield f"{module.path}:{use.line}: uses {use.name} on the floor {floor}/"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                yield f"{module.path}:{node.lineno}: async on the floor {floor}/"
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned:
                yield f"{module.path}:{node.lineno}: calls {node.func.id}() on the floor {floor}/"


def keys_are_not_drawn_below_the_entropy_door(house: House) -> Iterator[str]:
    """``SomePrivateKey.generate()`` draws randomness that no seed reproduces; keys are made from bytes that entropy gave."""
    for module in house.modules.values():
        for use in module.uses:
            if use.name.startswith("cryptography.") and use.name.endswith((".generate", ".generate_private_key", ".generate_key")):
                yield f"{module.path}:{use.line}: {use.name} draws its own randomness"


def exception_groups_only_in_the_supervisor(house: House) -> Iterator[str]:
    """trio hands failures over in groups; one place takes them apart."""
    for module in house.modules.values():
        if module.path == "node/supervisor.py":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.TryStar):
                yield f"{module.path}:{node.lineno}: except* outside node/supervisor.py"


def broad_except_only_at_doors(house: House) -> Iterator[str]:
    """``except Exception`` translates at a door; what catches everything must raise again (offload does it in the caller's task)."""
    for module in house.modules.values():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {kind.id for kind in kinds if isinstance(kind, ast.Name)} | ({"bare"} if node.type is None else set())
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if names & {"bare", "BaseException"} and not raises and module.path != "node/offload.py":
                yield f"{module.path}:{node.lineno}: catches everything, cancellation too, and does not raise again"
            elif "Exception" in names and not _is_within(module.path, BROAD_EXCEPT_DOORS):
                yield f"{module.path}:{node.lineno}: except Exception away from a door"


def packages_are_maps(house: House) -> Iterator[str]:
    """Each folder has an ``__init__.py`` that is one docstring and names every file and folder beside it."""
    children: dict[str, set[str]] = {}
    for module in house.modules.values():
        parent, _, stem = module.name.rpartition(".")
        if parent:
            children.setdefault(parent, set()).add(stem)
            while parent:  # a folder without __init__.py has no module of its own, yet must appear in its parent's map
                grandparent, _, stem = parent.rpartition(".")
                if grandparent:
                    children.setdefault(grandparent, set()).add(stem)
                parent = grandparent
    for package, stems in sorted(children.items()):
        init = house.modules.get(package)
        if init is None or not init.is_package:
            yield f"{package.replace('.', '/')}/: no __init__.py"
            continue
        text = ast.get_docstring(init.tree)
        if text is None or len(init.tree.body) != 1:
            yield f"{init.path}:1: must be one docstring, the map of its folder, and nothing else"
        for stem in sorted(stems):
            if not re.search(rf"(?<!\w){re.escape(stem)}(?!\w)", text or ""):
                yield f"{init.path}:1: the map does not name {stem}"


def nothing_is_left_to_do(house: House) -> Iterator[str]:
    """What is not done stands in docs/ as a decision or an open requirement, not in a source."""
    pattern = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for module in [*house.modules.values(), *house.sources_around]:
        for number, line in enumerate(module.text.splitlines(), 1):
            if pattern.search(line):
                yield f"{module.path}:{number}: {line.strip()[:80]}"


def files_have_names(house: House) -> Iterator[str]:
    """A file says what it holds."""
    for module in [*house.modules.values(), *house.sources_around]:
        if module.path.rpartition("/")[2] in NAMELESS_FILES:
            yield f"{module.path}: a name that says nothing"


def modules_say_what_they_are(house: House) -> Iterator[str]:
    """Every source begins with a docstring, tests with what they show."""
    for module in [*house.modules.values(), *house.sources_around]:
        if module.tree.body and ast.get_docstring(module.tree) is None:
            yield f"{module.path}:1: no docstring"


def tests_belong_to_a_function_that_can_fail(house: House) -> Iterator[str]:
    """A test that neither asserts, raises, expects nor calls anything cannot fail."""
    for module in house.sources_around:
        if not module.path.startswith("tests/"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                can_fail = any(
                    isinstance(inner, ast.Assert | ast.Raise | ast.Call | ast.Await) for stmt in node.body for inner in ast.walk(stmt)
                )
                if not can_fail:
                    yield f"{module.path}:{node.lineno}: {node.name} cannot fail"


# --- texts that must agree with sources ------------------------------------------------------------------------------


def requirements_name_real_tests(house: House) -> Iterator[str]:
    """docs/REQUIREMENTS.md names only tests and make targets that exist."""
    yield from _unreal_tests(house, "docs/REQUIREMENTS.md")


def every_fault_names_real_tests(house: House) -> Iterator[str]:
    """Every row of docs/FAULTS.md names a test; tests and the errors' stable names exist."""
    file = house.root / "docs" / "FAULTS.md"
    if not file.exists():
        return
    yield from _unreal_tests(house, "docs/FAULTS.md")
    errors = house.root / "protocols" / "errors.py"
    stable = set(re.findall(r'"(E-[A-Z-]+)"', errors.read_text(encoding="utf-8"))) if errors.exists() else set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("| ") and not line.startswith("| fault |") and "tests/" not in line.rsplit("|", 2)[-2]:
            yield f"docs/FAULTS.md:{number}: no test shows it"
        for name in set(re.findall(r"\bE-[A-Z][A-Z-]*[A-Z]", line)) - stable:
            yield f"docs/FAULTS.md:{number}: no error is called {name}"


def _unreal_tests(house: House, document: str) -> Iterator[str]:
    """Tests and make targets that a document names and that do not exist."""
    file = house.root / document
    if not file.exists():
        return
    makefile = house.root / "Makefile"
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile.read_text(encoding="utf-8"), re.MULTILINE)) if makefile.exists() else set()
    around: dict[str, Module] = {module.path: module for module in house.sources_around}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        for path, name in re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+(?:::\w+)*))?", line):
            module = around.get(path)
            if module is None:
                yield f"{document}:{number}: {path} does not exist"
            elif name and not _has_definition(module, name.split("::")):
                yield f"{document}:{number}: {path} has no {name}"
        for target in re.findall(r"`make ([a-z-]+)", line):
            if target not in targets:
                yield f"{document}:{number}: make has no target {target}"


def _has_definition(module: Module, names: list[str]) -> bool:
    body: list[ast.stmt] = module.tree.body
    for name in names:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
                body = node.body
                break
        else:
            return False
    return True


RULES: tuple[Callable[[House], Iterator[str]], ...] = (
    imports_point_down,
    no_sideways_imports,
    no_cycles,
    one_user_per_door,
    floors_stay_pure,
    keys_are_not_drawn_below_the_entropy_door,
    exception_groups_only_in_the_supervisor,
    broad_except_only_at_doors,
    packages_are_maps,
    nothing_is_left_to_do,
    files_have_names,
    modules_say_what_they_are,
    tests_belong_to_a_function_that_can_fail,
    requirements_name_real_tests,
    every_fault_names_real_tests,
)
