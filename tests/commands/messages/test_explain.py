"""Mistakes of every kind end in one message; a fault of ours in a traceback and a request to report it."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from cifar.base.errors import UserError
from cifar.commands.main import VERBS
from cifar.commands.messages.explain import explain
from cifar.experiment.typed.command_line import typed
from tests.conftest import MODELS, QUIET, ROOT, Command
from tests.in_process import call

HEAD = "# @package _global_\n"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mine(content: bytes, name: str = "mine") -> list[str]:
    """Write an experiment file and return the words that choose it."""
    Path("c/experiment").mkdir(parents=True, exist_ok=True)
    Path(f"c/experiment/{name}.yaml").write_bytes(content)
    return ["--config-dir=c", f"experiment={name}", *QUIET]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr: 0.01\nepochs: 2\n", "c/experiment/mine.yaml: its values would go under 'experiment'. "
         "Its first line must be: # @package _global_"),
        (b"defaults:\n  - override /optimizer: sgd\n", "c/experiment/mine.yaml: its values would go under "
         "'experiment'. Its first line must be: # @package _global_"),
        (b"\xef\xbb\xbf# @package _global_\nlr: 0.01\n", "c/experiment/mine.yaml is UTF-8 with a byte-order mark, "
         "which Hydra does not read. Save it as plain UTF-8."),
        (b"\xff\xfe" + HEAD.encode("utf-16-le"), "c/experiment/mine.yaml is UTF-16, which Hydra does not read. "
         "Save it as plain UTF-8."),
        (b"# @package _global_\nlr: 0.01\n\tepochs: 2\n", "c/experiment/mine.yaml, line 3, column 1: found character "
         "'\\t' that cannot start any token. Indent with spaces instead of tabs."),
        (b"# @package _global_\nlr: 0.1 # \xe9\n", "c/experiment/mine.yaml, line 2: byte 0xe9 is not UTF-8. "
         "Save the file as UTF-8."),
        (b"# @package _global_\nlr: 0.1\nlr: 0.2\n", "c/experiment/mine.yaml, line 3, column 1: found duplicate key "
         "lr. Keep one of them."),
        (b"# @package _global_\ndefaults:\n  - mine\n", "The defaults of 'experiment/mine' name that file itself. "
         "For the place of its own values write _self_, not its name."),
        (b"# @package _global_\nlr: 0.1\nepohcs: 2\n", "c/experiment/mine.yaml, line 3: There is no key 'epohcs'. "
         "Did you mean 'epochs'?"),
        (b"# @package _global_\ndata:\n  val_sise: 2\n", "c/experiment/mine.yaml, line 3: There is no key "
         "'data.val_sise'. Did you mean 'val_size'?"),
        (b"# @package _global_\noptimizer:\n  momentun: 0.9\n", "c/experiment/mine.yaml, line 3: There is no key "
         "'optimizer.momentun'. optimizer has: "),
        (b"# @package _global_\nschedule:\n  _target_: cifar.training.schedules.Cosine\n  warm_epochs: 1\n",
         "mine.yaml, line 4: There is no key 'schedule.warm_epochs'. Did you mean 'warmup_epochs'? schedule has: "),
        (b"# @package _global_\nlr: high\n", "c/experiment/mine.yaml, line 2: lr: Value 'high'"),
        (b"# @package _global_\n- lr\n", "c/experiment/mine.yaml"),
        (b"just a text\n", "c/experiment/mine.yaml"),
        (b"# @package _global_\nlr: 0.1\x00\n", "c/experiment/mine.yaml is not possible as YAML"),
        (b"# @package _global_\ndefaults: {a: 1}\n", "defaults must be a list"),
    ],
)  # fmt: skip
def test_an_experiment_file_that_cant_be_read_is_named_with_line_and_cure(content: bytes, message: str) -> None:
    result = call(*mine(content))
    assert result.code == 1
    assert message in result.errors
    assert "Traceback" not in result.errors
    assert len(result.errors.splitlines()) == 1


def test_keys_of_the_files_own_choice_can_be_left_out_for_another_choice() -> None:
    words = mine(b"# @package _global_\ndefaults:\n  - override /schedule: step\nschedule:\n  every_epochs: 3\n")
    result = call(*words, "schedule=cosine")
    assert result.code == 1
    assert "mine.yaml, line 5: There is no key 'schedule.every_epochs'. " in result.errors
    way = " It belongs to schedule=step: with schedule=cosine, leave it out, '~schedule.every_epochs'.\n"
    assert result.errors.endswith(way)
    assert call(*words, "schedule=cosine", "~schedule.every_epochs").code == 0


def test_a_misspelt_key_is_not_to_be_left_out() -> None:
    words = mine(b"# @package _global_\ndefaults:\n  - override /schedule: step\nschedule:\n  every_epoch: 3\n")
    result = call(*words, "schedule=step")
    assert "There is no key 'schedule.every_epoch'. Did you mean 'every_epochs'? " in result.errors
    assert "leave it out" not in result.errors


def test_two_files_in_each_others_defaults_are_named() -> None:
    mine(b"# @package _global_\ndefaults:\n  - second\n", "first")
    result = call(*mine(b"# @package _global_\ndefaults:\n  - first\n", "second"))
    assert (
        result.errors
        == (
            "The defaults of 'experiment/first' name 'experiment/second', which names 'experiment/first': "
            "that has no end.\n"
        )
        or "'experiment/second' name 'experiment/first', which names 'experiment/second'" in result.errors
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["~lr"], "lr can't be left out."),
        (["~schedule"], "schedule can't be left out."),
        (["~data.val_size"], "data.val_size can't be left out."),
        (["~resume"], "Could not delete from config. 'resume' does not exist."),
        (["schedule=step", "~schedule.every_epochs"], "schedule.every_epochs can't be left out."),
        (["+augment.pading=3"], "no key 'augment.pading'. Did you mean 'padding'? augment has: flip, padding."),
        (["+data.source.num_tests=3"], "Did you mean 'num_test'?"),
        (["model=[]"], "model can't be left out."),
        (["model=null"], f"model=null is not possible: there is {MODELS}."),
        (["-m", "model=null,vgg16"], f"model=null is not possible: there is {MODELS}."),
        (["augment=${seed}"], "augment=${seed} is not possible: Interpolation key 'seed' not found."),
        (["model=3"], f"model=3 is not possible: there is {MODELS}."),
        (["-m", "lr=range(0,1,0)"], "lr=range(0,1,0) is not possible: range() arg 3 must not be zero."),
        (["-m", "lr=range(3,1)"], "The sweep has no jobs: the values of lr are none."),
        (["lr=choice(0.1)"], "'lr=choice(0.1)' requires --multirun"),
        (["hydra.run.dir=${oc.env:NOPE}"], "hydra.run.dir: KeyError raised while resolving interpolation: "
         "\"Environment variable 'NOPE' not found\"."),
        (["init_from=${oc.env:NOPE}"], "init_from: "),
        (["init_from=${nope}"], "init_from: Interpolation key 'nope' not found."),
        (["data.root=${seed"], "data.root=${seed can't be read"),
        (["hydra.run.dir=a/" + 300 * "n"], "File name too long"),
        (["hydra.run.dir=file/below"], "file/below"),
        (["hydra.run.dir=file"], "file: File exists."),
        (["--config-dir=nowhere"], "nowhere' not found"),
        (["--config-name=nowhere"], "nowhere"),
        (["schedule=cosine", "schedule.warmup_epochs=inf"], "schedule.warmup_epochs=inf is not possible"),
        (["schedule=cosine", "schedule.warmup_epochs=1e308"], "schedule.warmup_epochs=1e+308 is"),
        (["augment=crop_flip", "augment.flip=maybe"], "augment.flip='maybe' is not possible"),
        (["augment=crop_flip", "augment.padding=1.5"], "augment.padding=1.5 is not possible"),
        (["lr"], "'lr' is not possible: a word is KEY=VALUE, such as lr=0.01"),
        (["1lr=3"], "'1lr=3' is not possible: '1lr' can't be a key."),
        (["lr=\udcff"], "can't be read: it is not UTF-8"),
        (["hydra/launcher=nope"], "hydra/launcher=nope is not possible: there is"),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, list) else None,
)  # fmt: skip
def test_a_word_that_is_not_possible_ends_in_one_message(words: list[str], message: str) -> None:
    Path("file").touch()
    result = call(*words, *QUIET)
    assert result.code == 1
    assert message in result.errors
    assert "Traceback" not in result.errors
    assert "Error executing job" not in result.errors
    assert len(result.errors.splitlines()) <= 4


NUMBERS_BEYOND = [
    *[f"{key}={10**9 + 1}" for key in (
        "epochs", "batch_size", "accumulate", "eval_batch_size", "log_every", "checkpoint.every_epochs", "data.limit",
        "data.val_size", "data.test_limit",
    )],
    "checkpoint.keep=99999999999", "checkpoint.keep=1001", "device.threads=2147483648", "device.threads=1025",
    "seed=1180591620717411303424", f"seed={2**63}", f"data.split_seed={2**63}", "lr=1e400", "lr=1e-400", "lr=nan",
    "checkpoint.every_minutes=inf", "checkpoint.every_minutes=nan", "label_smoothing=nan", "data.mean=[nan,0,0]",
    "data.std=[1,1,inf]", "data.num_classes=1000001", "data.mean=${seed}", "data.std=[${seed},1,1]",
]  # fmt: skip


@pytest.mark.parametrize("word", NUMBERS_BEYOND)
def test_numbers_beyond_what_torch_or_the_machine_can_hold_are_refused(word: str) -> None:
    key = word.partition("=")[0]
    result = call(*QUIET, word)
    assert (result.code, "Traceback" in result.errors) == (1, False)
    assert re.match(rf"{key}=\S.* is not possible: it takes .+\.\n$", result.errors)


@pytest.mark.parametrize("word", ["epochs=true", "lr=true", "seed=1.5", "device.compile=two", "lr=[1]", "lr={a:1}"])
def test_values_of_another_type_are_refused(word: str) -> None:
    result = call(*QUIET, word)
    assert (result.code, "Traceback" in result.errors) == (1, False)
    assert word.partition("=")[0] in result.errors


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("init_from", "/x/epoch=3-step=99.ckpt", "Hydra takes '=' for a sign of its own"),
        ("init_from", "/x/modèle.pt", "without quotes Hydra takes no 'è' in a value"),
        ("init_from", "/x/run#3.pt", "without quotes Hydra takes no '#' in a value"),
        ("data.root", "~/cifar", "without quotes Hydra takes no '~' in a value"),
        ("data.root", "a b(c", "Hydra takes '(' for a sign of its own"),
        ("data.root", "it's", 'without quotes Hydra takes no "\'" in a value'),
        ("data.root", "a&b;c!<d>", "without quotes Hydra takes no '&' in a value"),
        ("data.root", "数据/“x”", "without quotes Hydra takes no '数' in a value"),
        ("data.root", "a=\\b", "Hydra takes '=' for a sign of its own"),
        ("data.root", "x#$HOME`id`", "without quotes Hydra takes no '#' in a value"),
        ("hydra.run.dir", "a]b", "Hydra takes ']' for a sign of its own"),
    ],
)
def test_a_value_that_needs_quotes_is_shown_with_them_and_typing_that_works(
    tmp_path: Path, key: str, value: str, reason: str
) -> None:
    word = f"{key}={value}"
    result = call(*QUIET, word)
    start = f"{word} can't be read: {reason}. Type it quoted, for Hydra and for the shell: "
    assert result.errors.startswith(start)
    typed = result.errors.removeprefix(start).rstrip("\n")
    shell = subprocess.run(["sh", "-c", f"printf %s {typed}"], capture_output=True, check=True)
    (again,) = shlex.split(typed)
    assert shell.stdout.decode() == again
    seen: list[str] = []
    with mock.patch("tests.in_process.check", lambda cfg: seen.append(cfg.init_from or cfg.data.root)):
        result = call(*QUIET, again)
    assert result.errors == ""
    if not key.startswith("hydra"):
        assert seen == [value]
    else:
        assert (tmp_path / value).is_dir()


@pytest.mark.parametrize("name", ["a b", "a=b#é", "it's", "${x}", "-1", "a,b"])
def test_printed_words_are_quoted_for_hydra_and_the_shell(name: str) -> None:
    (word,) = shlex.split(typed("init_from", f"{name}.pt"))
    seen: list[str] = []
    with mock.patch("tests.in_process.check", lambda cfg: seen.append(cfg.init_from)):
        assert call(*QUIET, word).errors == ""
    assert seen == [f"{name}.pt"]


def test_a_path_to_resume_needs_no_quotes(tmp_path: Path) -> None:
    result = call(*QUIET, "resume=outputs/naïve run#3")
    assert result.errors == "resume=outputs/naïve run#3: there is no such folder or checkpoint.\n"


@pytest.mark.parametrize("word", ["experiment=null", "hydra/env=null"])
def test_no_choice_of_an_optional_group_is_null(word: str) -> None:
    assert call(*QUIET, word) == call(*QUIET)


def test_null_is_swept_with_other_choices(tmp_path: Path) -> None:
    seen: list[int] = []
    with mock.patch("tests.in_process.check", lambda cfg: seen.append(cfg.epochs)):
        for words in ("experiment=null,demo", "experiment=demo,null", "experiment=choice(null,demo)"):
            result = call("-m", *QUIET, words)
            assert (result.code, result.errors) == (0, "")
            assert "starts: experiment=null\n" in result.output
    assert seen == [1, 5, 5, 1, 1, 5]


def test_a_users_own_optional_group_takes_null() -> None:
    Path("c/flavour").mkdir(parents=True)
    Path("c/flavour/hot.yaml").write_text(HEAD + "lr: 0.5\n")
    Path("c/own.yaml").write_text("defaults:\n  - config\n  - flavour: null\n  - _self_\n")
    seen: list[float] = []
    with mock.patch("tests.in_process.check", lambda cfg: seen.append(cfg.lr)):
        result = call("-m", "--config-dir=c", "--config-name=own", *QUIET, "flavour=null,hot")
    assert (result.code, result.errors, seen) == (0, "", [0.001, 0.5])


def test_a_fault_of_ours_shows_where_it_is_and_asks_to_be_reported() -> None:
    with mock.patch("tests.in_process.check", side_effect=KeyError("nothing of the user's")):
        result = call(*QUIET)
    assert result.code == 1
    assert result.errors.startswith("Traceback (most recent call last):")
    assert result.errors.endswith(
        'KeyError: "nothing of the user\'s"\n'
        "This is a fault of cifar-framework: please report it with the lines above.\n"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("x=1 is not possible"), "x=1 is not possible"),
        (OSError(28, "No space left on device", "/x/y"), "/x/y: No space left on device."),
        (MemoryError("x"), "The memory is not enough: x. Try a smaller model, batch or set of images."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
         "The memory is not enough"),
        (ValueError("Overflow when unpacking long long"), "A number in the configuration is too large: Overflow"),
        (OverflowError("int too big to convert"), "A number in the configuration is too large: int too big"),
        (KeyError("lr"), None),
        (ValueError("anything"), None),
    ],
)  # fmt: skip
def test_errors_of_the_machine_are_told_from_faults(error: Exception, message: str | None) -> None:
    found = explain(error)
    assert found is None if message is None else found is not None and found.startswith(message)


def test_an_error_of_the_compiler_is_one_message() -> None:
    kind = type("InvalidCxxCompiler", (RuntimeError,), {"__module__": "torch._inductor.exc"})
    found = explain(kind("No working C++ compiler found in torch._inductor.config.cpp.cxx: None"))
    assert found is not None
    assert found.startswith("device.compile=true is not possible here: No working C++ compiler found")
    assert found.endswith("Use device.compile=false, or install what is missing, such as a C++ compiler.")


def test_a_job_of_a_sweep_that_fails_through_a_library_is_one_line() -> None:
    with mock.patch("tests.in_process.check", side_effect=OSError(28, "No space left on device", "x")):
        result = call("-m", *QUIET, "seed=0")
    assert "Job 0 failed: x: No space left on device." in result.output
    assert result.errors == "x: No space left on device.\n"


def test_python_without_assert_statements_is_refused_in_a_line(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-O", "run.py"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1
    assert result.stderr == (
        "python -O is not possible: it takes out the assert statements, and Hydra 1.3 needs its own. "
        "Leave out -O, or unset PYTHONOPTIMIZE.\n"
    )


def test_compose_works_without_an_import_of_ours(tmp_path: Path) -> None:
    code = (
        "from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(ROOT / 'conf')!r}, version_base='1.3'):\n"
        "    cfg = compose('config', overrides=['data=digits', 'lr=1'])\n"
        "print(type(cfg.lr).__name__, cfg.data.source._target_)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (result.stdout, result.stderr) == ("float cifar.data.sources.digits.Digits\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_leaves_by_one_place(verb: str) -> None:
    (module,) = (ROOT / "cifar" / "commands").rglob(f"{verb.replace('-', '_')}.py")
    tree = ast.parse(module.read_text())
    (command,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "command"]
    _, call = command.body
    assert re.fullmatch(r"(cli\.start|guard)\(\w+\)", ast.unparse(call))


def test_characters_that_a_terminal_cant_show_are_replaced(tmp_path: Path, cold_command: Command) -> None:
    result = cold_command("experiment='naïve'", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.returncode == 1
    assert result.stderr.startswith("experiment=na\\xefve is not possible: there is ablation, ")


def test_the_guard_replaces_what_stdout_cant_show(tmp_path: Path) -> None:
    code = "from cifar.commands.messages import exits\nexits.guard(lambda: print('è → 5'))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=100,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, b"? ? 5\n", b"")
