"""An exported file gives the run's answers alone, says where it comes from, and is not written if it does not."""

import io
import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import cifar
from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint, sealed
from cifar.commands.export import KINDS
from cifar.data.files import downloads
from cifar.experiment.exports.export import FORMATS, Done, export
from cifar.experiment.exports.exported import Classifier
from cifar.experiment.stored.weights import load_weights
from cifar.experiment.trained import TrainedRun
from cifar.training.devices.fast_conv import FastConv2d
from tests.conftest import QUIET, ROOT, read_summary

OWN = "model._target_=tests.tiny_model.tiny"
SHIPPED = ["data=digits", "data.limit=100", "data.test_limit=120", "augment=none", "tracker=none", "device=cpu"]


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of a network wide enough for the faster convolutions."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    cifar.train(cifar.compose([*SHIPPED, "model=speednet", "model.widths=[64,128,128]"]), folder)
    return folder


@pytest.fixture(name="run", scope="module")
def _run(folder: Path) -> TrainedRun:
    return cifar.load_run(folder)


@pytest.fixture(name="done", scope="module", params=KINDS)
def _done(run: TrainedRun, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Return one export of every kind."""
    path = tmp_path_factory.mktemp("files") / f"exported{FORMATS[request.param].suffix}"
    return export(run, request.param, path)


def metadata(path: Path) -> dict[str, Any]:
    """Return what a file says of itself, read with its format's own library."""
    if path.suffix == ".pt2":
        found = {"metadata.json": ""}
        torch.export.load(path, extra_files=found)
        return dict(json.loads(found["metadata.json"]))
    if path.suffix == ".onnx":
        import onnx

        texts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    else:
        with safe_open(path, "pt") as file:
            texts = file.metadata()
    return {key: as_json(text) for key, text in texts.items()}


def as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


USES = {
    ".onnx": "space['session'].run(None, {'images': images})[0]",
    ".pt2": "space['program'].module()(space['torch'].from_numpy(images)).detach().numpy()",
    ".safetensors": "space['model'].forward(space['torch'].from_numpy(inputs)).softmax(1).detach().numpy()",
}


def test_the_printed_lines_give_the_runs_answers_in_a_new_process(done: Done, run: TrainedRun, tmp_path: Path) -> None:
    images = run.test_set().test_images[:100]
    data = run.config["data"]
    mean, std = (np.array(data[key], dtype=np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    np.save(tmp_path / "images.npy", images.numpy())
    np.save(tmp_path / "inputs.npy", (images.numpy() / np.float32(255) - mean) / std)
    (tmp_path / "lines.py").write_text("\n".join(done.lines) + "\n")
    hidden = "" if done.path.suffix == ".safetensors" else "sys.modules['cifar'] = None"  # importing it would fail
    program = f"""
import sys
{hidden}
space = {{}}
exec(open('{tmp_path}/lines.py').read(), space)
import numpy
images, inputs = (numpy.load('{tmp_path}/' + name) for name in ('images.npy', 'inputs.npy'))
for size in (1, 7, 100):
    found = (lambda images, inputs: {USES[done.path.suffix]})(images[:size], inputs[:size])
    numpy.save(f'{tmp_path}/{{size}}.npy', found)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in run.class_names)
    expected = run.probabilities(images).numpy()
    for size in (1, 7, 100):
        np.testing.assert_allclose(np.load(tmp_path / f"{size}.npy"), expected[:size], atol=1e-5)


def test_the_file_says_how_to_use_it_and_where_it_comes_from(done: Done, run: TrainedRun, folder: Path) -> None:
    found, summary, data = metadata(done.path), read_summary(folder), run.config["data"]
    assert found["class_names"] == run.class_names
    assert (found["mean"], found["std"], found["image_size"]) == (data["mean"], data["std"], [32, 32])
    assert found["model"] == run.config["model"]
    for key in ("test_accuracy", "num_parameters", "config_hash", "seed", "status", "versions", "epochs"):
        assert found[key] == summary[key], key
    assert found.get("git_commit") == summary["git_commit"]
    assert found["exported_by"]["torch"] == torch.__version__
    assert "(N, 3, 32, 32)" in found["input"]
    assert (done.num_images, done.num_bytes) == (100, done.path.stat().st_size)
    assert 0 <= done.difference <= 1e-5


def test_nothing_of_the_folders_that_made_it_is_in_it(done: Done) -> None:
    content = done.path.read_bytes()
    if done.path.suffix == ".pt2":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    for text in (str(ROOT), "site-packages", str(done.path.parent)):
        assert text.encode() not in content


@pytest.mark.parametrize("done", ["onnx"], indirect=True)
def test_the_onnx_graph_has_plain_convolutions_and_any_number_of_images(done: Done, run: TrainedRun) -> None:
    import onnx

    layers = [module for module in run.model.modules() if isinstance(module, FastConv2d)]
    assert any(layer.choose_form(torch.zeros(1, layer.in_channels, 7, 7)) for layer in layers)
    graph = onnx.load(done.path).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == len([module for module in run.model.modules() if isinstance(module, nn.Conv2d)]) == 7
    assert not {*kinds} & {"MatMul", "Einsum", "Pad"}
    (image,), (answer,) = graph.input, graph.output
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shapes = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (image, answer)]
    assert shapes == [["batch", 3, 32, 32], ["batch", 10]]


def test_safetensors_are_first_weights_of_a_run(run: TrainedRun, tmp_path: Path) -> None:
    path = export(run, "safetensors", tmp_path / "m.safetensors").path
    other = cifar.compose([*SHIPPED, "model=speednet", "model.widths=[64,128,128]"])
    from cifar.experiment.building import create

    model = create(other.model)
    assert load_weights(model, path) is None
    for key, value in model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[key]), key


def test_wrong_answers_leave_no_file(run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_mean(self: Classifier, images: Tensor) -> Tensor:
        found: Tensor = self.model(images.float() / 255 / self.std).softmax(dim=1)
        return found

    monkeypatch.setattr(Classifier, "forward", without_mean)
    path = tmp_path / "m"
    with pytest.raises(UserError, match="does not give the run's answers: on 100 test images"):
        export(run, "torch", path)
    assert not [*tmp_path.iterdir()]
    path.write_text("an older file")
    with pytest.raises(UserError, match="does not give"):
        export(run, "safetensors", path, force=True)
    assert path.read_text() == "an older file"
    assert [*tmp_path.iterdir()] == [path]


def test_answers_that_are_not_numbers_leave_no_file(folder: Path, tmp_path: Path) -> None:
    run = cifar.load_run(folder)
    head = run.model.head
    assert isinstance(head, nn.Linear)
    head.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="differs by nan"):
        export(run, "safetensors", tmp_path / "m")
    assert not [*tmp_path.iterdir()]


@pytest.fixture(name="own", scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run of the user's own model."""
    folder = tmp_path_factory.mktemp("own") / "run"
    cifar.train(cifar.compose(QUIET), folder)
    return folder


def test_without_the_test_images_noise_will_do_and_nothing_is_downloaded(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(downloads, "fetch", lambda url, path: pytest.fail("it downloads"))
    content = read_checkpoint(own / "checkpoint.pt")
    source = {"_target_": "cifar.data.sources.CIFAR10", "root": str(tmp_path / "no"), "mirrors": ["http://x"]}
    content["config"]["data"]["source"] = source
    (tmp_path / "alone.pt").write_bytes(sealed(content))
    done = export(cifar.load_run(tmp_path / "alone.pt", [OWN]), "safetensors", tmp_path / "m")
    assert (done.num_images, done.images) == (100, "100 random images (seed 0)")
    assert "noise takes their place: cifar-10-python.tar.gz can't be downloaded" in caplog.text
    assert "no result beside" in caplog.text
    assert "test_accuracy" not in metadata_of(done.path)
    assert not (tmp_path / "no").exists()


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_fewer_test_images_are_compared_too(own: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    done = export(cifar.load_run(own, [OWN]), "safetensors", tmp_path / "m")
    assert (done.num_images, done.images) == (30, "30 test images")
    assert not caplog.records


def test_a_run_that_diverged_is_no_model(own: Path, tmp_path: Path) -> None:
    summary = read_summary(own) | {"status": "diverged", "error": "The loss is not finite after step 3."}
    (tmp_path / "checkpoint.pt").write_bytes((own / "checkpoint.pt").read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"diverged: The loss is not finite after step 3\. Its last weights"):
        export(cifar.load_run(tmp_path, [OWN]), "safetensors", tmp_path / "m")
    assert not (tmp_path / "m").exists()


class Branching(nn.Module):
    """Decides by a value which way to go, which no graph can."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.layer(inputs.flatten(1))
        return logits if logits.sum() > 0 else logits.flip(0).flip(0)


def test_a_model_without_a_graph_is_one_message_and_its_weights_go(own: Path, tmp_path: Path) -> None:
    words = [word for word in QUIET if not word.startswith("model.")]
    target = "model._target_=tests.experiment.exports.test_export.Branching"
    cifar.train(cifar.compose([*words, target]), tmp_path / "run")
    run = cifar.load_run(tmp_path / "run", [target])
    with pytest.raises(UserError, match="can't be exported, because its code can't be made a graph"):
        export(run, "torch", tmp_path / "m.pt2")
    assert export(run, "safetensors", tmp_path / "m.safetensors").difference <= 1e-6
    assert not (tmp_path / "m.pt2").exists()


def test_int8_keeps_the_answers_and_the_accuracy_is_measured(run: TrainedRun, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    done = export(run, "onnx", tmp_path / "m.onnx", int8=True)
    test = run.test_set()
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": test.test_images.numpy()})[0]
    expected, labels = run.probabilities(test.test_images).numpy(), test.test_labels.numpy()
    assert done.accuracies == {
        "float32": pytest.approx((expected.argmax(1) == labels).mean(), abs=1e-12),
        "int8": pytest.approx((found.argmax(1) == labels).mean(), abs=1e-12),
    }
    assert 0 < np.abs(found - expected).max() < 0.1
    facts = metadata(done.path)
    assert facts["class_names"] == run.class_names
    assert facts["test_accuracy_int8"] == done.accuracies["int8"]
    weights = [entry for entry in onnx.load(done.path).graph.initializer if len(entry.dims) == 4]
    kinds = [entry.data_type for entry in weights]
    assert (kinds.count(onnx.TensorProto.FLOAT), kinds.count(onnx.TensorProto.INT8)) == (1, 6)


def test_int8_without_images_is_one_message(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cifar.load_run(own, [OWN])
    with pytest.raises(UserError, match="no convolution behind the first"):
        export(run, "onnx", tmp_path / "m.onnx", int8=True)
    monkeypatch.setattr(TrainedRun, "images", absent)
    with pytest.raises(UserError, match="needs the run's images, to find ranges and to measure its accuracy: absent"):
        export(run, "onnx", tmp_path / "m.onnx", int8=True)
    assert not [*tmp_path.iterdir()]


def absent(run: TrainedRun) -> Any:
    raise UserError("absent")


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")))
def test_every_shipped_model_goes_in_every_format(model: str, tmp_path: Path) -> None:
    cifar.train(cifar.compose([*SHIPPED, f"model={model}", "batch_size=50"]), tmp_path / "run")
    run = cifar.load_run(tmp_path / "run")
    for kind in KINDS:
        assert export(run, kind, tmp_path / kind).difference <= 1e-4  # 3e-5 for the hundred layers of a DenseNet
