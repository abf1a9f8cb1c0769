"""Composition, precedence, the rules, and the hash."""

import re
from pathlib import Path

import pytest
import yaml

from cifar.base.errors import UserError
from cifar.experiment.config import RULES, Config, check, config_hash, resolve
from tests.archives import put_cifar100, put_svhn
from tests.conftest import ROOT, Compose
from tests.pictures import write_class_folders

CONFIG_FILES = sorted((ROOT / "conf").rglob("*.yaml"))
CHOICES = [(path.parent.name, path.stem) for path in CONFIG_FILES if path.parent.parent.name == "conf"]  # not of hydra/


def small_data(choice: str, root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Make the files that a choice of data needs, small and below `root`, and return the words that lead to them."""
    if choice == "cifar100":
        put_cifar100(root, patch)
    elif choice == "svhn":
        put_svhn(root, patch)
    elif choice == "folder":
        write_class_folders(root, number=16)
    else:
        return []
    return [f"data.root={root}", "data.source.cache=null"]


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_the_first_line_of_a_file_says_what_it_is(path: Path) -> None:
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert first.startswith("# ")
    if path.parent.name == "experiment":
        assert re.match(rf"# cifar run (-m )?experiment={path.stem}\b", first)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_passes_the_rules(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, group: str, choice: str
) -> None:
    cfg = compose(f"{group}={choice}", *(small_data(choice, tmp_path, monkeypatch) if group == "data" else []))
    check(cfg)
    assert set(resolve(cfg)) == set(Config.__dataclass_fields__)


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [
        ([], 0.001),
        (["optimizer=adamw"], 0.001),
        (["optimizer=sgd"], 0.1),
        (["optimizer=sgd", "lr=0.02"], 0.02),
        (["lr=0.02", "optimizer=sgd"], 0.02),
        (["experiment=report_resnet50"], 0.001),
        (["experiment=report_resnet50", "optimizer=sgd"], 0.001),  # the experiment's own
        (["experiment=report_resnet50", "lr=0.03"], 0.03),
        (["lr=0.03", "experiment=report_vgg16"], 0.03),
    ],
)
def test_command_line_beats_experiment_beats_optimizer(compose: Compose, overrides: list[str], lr: float) -> None:
    cfg = compose(*overrides)
    assert (cfg.lr, cfg.optimizer.lr) == (lr, lr)


@pytest.mark.parametrize("model", ["resnet50", "vgg16"])
def test_report_experiments_are_the_reports_protocol(compose: Compose, model: str) -> None:
    cfg = resolve(compose(f"experiment=report_{model}", "init_from=given.ckpt"))
    assert cfg["model"] == {"_target_": f"cifar.models.{model.rstrip('0123456789')}.{model}", "num_classes": 10}
    assert cfg["optimizer"]["_target_"] == "torch.optim.Adam"
    assert cfg["optimizer"]["betas"] == [0.9, 0.999]
    assert (cfg["lr"], cfg["batch_size"], cfg["epochs"], cfg["log_every"]) == (0.001, 100, 1, 100)
    assert cfg["schedule"] == {
        "_target_": "cifar.training.schedules.Step",
        "every_epochs": 20,
        "factor": pytest.approx(1 / 3),
    }
    assert cfg["augment"] == {"_target_": "cifar.data.augment.crops.CropFlip", "padding": 4, "flip": True}
    assert (cfg["data"]["mean"], cfg["data"]["std"]) == ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    assert (cfg["label_smoothing"], cfg["init_from"], cfg["data"]["limit"]) == (0, "given.ckpt", None)


def test_data_root_is_cifar10_root_or_data(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ROOT", "/somewhere")
    assert compose().data.source.root == "/somewhere"
    monkeypatch.delenv("CIFAR10_ROOT")
    assert compose().data.source.root == "data"
    assert compose("data.root=/there").data.source.root == "/there"


@pytest.mark.parametrize(
    "override",
    [
        "lr=0", "lr=-1", "lr=nan", "lr=inf", "epochs=-1", "batch_size=0", "accumulate=0", "eval_batch_size=0",
        "seed=-1",
        "label_smoothing=1", "label_smoothing=-0.1", "log_every=0", "on_nonfinite=maybe", "clip_norm=0",
        "tta=six", "init_head=other",
        "checkpoint.every_epochs=0", "checkpoint.every_minutes=0", "checkpoint.keep=0",
        "data.limit=0",
        "data.size_schedule=[0]", "data.size_schedule=[]",
        "data.classes=[cat]", "data.classes=[cat,cat]", "data.classes=[]",
        "data.val_size=-1", "data.split_seed=-1", "data.test_limit=0",
        "data.num_classes=0", "data.mean=[0.5]", "data.std=[0.5,0.5,0]", "device.name=tpu", "device.precision=fp8",
        "device.threads=0", "data.source=${now:%Y}",
    ],
)  # fmt: skip
def test_impossible_values_are_named_with_what_is_allowed(compose: Compose, override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(UserError) as error:
        check(compose(override))
    assert str(error.value).startswith(f"{key}=")
    assert RULES[key][0] in str(error.value)


def test_every_rule_is_tested() -> None:
    (mark,) = test_impossible_values_are_named_with_what_is_allowed.pytestmark  # type: ignore[attr-defined]
    assert {override.split("=")[0] for override in mark.args[1]} == set(RULES)


@pytest.mark.parametrize(
    ("override", "message"),
    [("+lrr=1", "no key 'lrr'. Did you mean 'lr'"), ("+data.limits=1", "no key 'data.limits'. Did you mean 'limit'"),
     ("+device.gpu=1", "no key 'device.gpu'. device has: channels_last")],
)  # fmt: skip
def test_an_added_key_that_nothing_reads_is_refused(compose: Compose, override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        check(compose(override))
    assert message in str(error.value)


def test_hash_changes_with_what_can_change_the_numbers_and_with_nothing_else(compose: Compose) -> None:
    def hash_of(*overrides: str) -> str:
        return config_hash(resolve(compose(*overrides)))

    same = [
        [],
        ["tracker=none"],
        ["log_every=7"],
        ["data.root=/elsewhere"],
        ["data.source.mirrors=[]"],
        ["lr=1e-3"],
        ["resume=auto"],
        ["checkpoint.keep=5"],
    ]
    assert len({hash_of(*overrides) for overrides in same}) == 1
    others = [["lr=0.01"], ["seed=1"], ["model=vgg16"], ["device.threads=1"], ["data.limit=10"], ["optimizer=adamw"],
              ["augment=none"], ["mix=mixup"], ["mix=cutmix"], ["data=random"], ["batch_size=50"], ["epochs=2"],
              ["init_from=x"], ["accumulate=2"], ["on_nonfinite=skip"],
              ["clip_norm=1"], ["optimizer=sam"], ["average=ema"]]  # fmt: skip
    assert len({hash_of(*overrides) for overrides in [[], *others]}) == len(others) + 1


def test_defaults_are_visible_in_yaml(compose: Compose) -> None:
    """Every argument of what a group builds stands in its file, except those the program hands over."""
    import inspect

    from hydra.utils import get_object

    handed_over = {"info", "params", "foreach", "maximize", "capturable", "differentiable", "fused", "amsgrad",
                   "decoupled_weight_decay", "dampening"}  # fmt: skip
    for group, choice in CHOICES:
        if group in ("experiment", "device"):
            continue
        cfg = yaml.safe_load((ROOT / "conf" / group / f"{choice}.yaml").read_text())
        node = cfg["source"] if group == "data" else cfg.get(choice if group == "test_on" else group, cfg)
        arguments = set(inspect.signature(get_object(node["_target_"])).parameters) - handed_over
        assert arguments <= set(node), (group, choice)
