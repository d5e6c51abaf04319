"""The DCGAN from torch's weights: against transposed convolution written out, and against torch."""

import pathlib
import zipfile

import jax
import numpy as np
import pytest

from jaxdiff import interop

RNG = np.random.default_rng(0)


def small():
    """Weights of latents of 6, 4 and 3 channels inside, two colours: images of 16x16."""
    weights, sizes = {}, [(6, 4), (4, 3), (3, 2)]
    for i, (inputs, outputs) in enumerate(sizes):
        weights[f"main.{3 * i}.weight"] = RNG.normal(size=(inputs, outputs, 4, 4)) * 0.3
        if i < 2:
            norm = f"main.{3 * i + 1}."
            weights[norm + "weight"] = RNG.uniform(0.5, 1.5, outputs)
            weights[norm + "bias"] = RNG.normal(size=outputs)
            weights[norm + "running_mean"] = RNG.normal(size=outputs)
            weights[norm + "running_var"] = RNG.uniform(0.5, 2, outputs)
            weights[norm + "num_batches_tracked"] = np.array(7)
    return {name: np.asarray(a, np.float32) for name, a in weights.items()}


WEIGHTS = small()


def transposed(h, w, stride, padding):
    """Each input adds its multiple of the kernel to the output; `padding` is cut off all round."""
    _, size, _ = h.shape
    out = np.zeros((w.shape[1], stride * (size - 1) + 4, stride * (size - 1) + 4))
    for y in range(size):
        for x in range(size):
            part = np.einsum("i,iokl->okl", h[:, y, x], w)
            out[:, stride * y : stride * y + 4, stride * x : stride * x + 4] += part
    return out[:, padding : out.shape[1] - padding, padding : out.shape[2] - padding]


def test_is_transposed_convolution_norm_and_relu():
    net, variables, latent = interop.convert_dcgan(WEIGHTS)
    assert (net.channels, net.out_channels, latent) == ((4, 3), 2, 6)
    z = RNG.normal(size=(2, 6)).astype(np.float32)
    got = jax.jit(net.apply)(variables, z)
    for i in range(2):
        h = z[i].astype(float)[:, None, None]
        for layer in range(3):
            w = WEIGHTS[f"main.{3 * layer}.weight"].astype(float)
            h = transposed(h, w, *((1, 0) if layer == 0 else (2, 1)))
            if layer < 2:
                gain, bias, mean, var = (
                    WEIGHTS[f"main.{3 * layer + 1}.{name}"].astype(float)[:, None, None]
                    for name in ("weight", "bias", "running_mean", "running_var")
                )
                h = np.maximum(gain * (h - mean) / np.sqrt(var + 1e-5) + bias, 0)
        np.testing.assert_allclose(got[i].transpose(2, 0, 1), np.tanh(h), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("main.1.bias"), "weights must hold main.1.bias"),
        (lambda w: w.update({"main.1.bias": np.zeros(5)}), r"main.1.bias must be \[4\]"),
        (lambda w: w.update({"main.3.weight": np.zeros((5, 3, 4, 4))}), "main.3.weight must be"),
        (lambda w: w.update({"main.0.weight": np.zeros((6, 4, 5, 5))}), "main.0.weight must be"),
        (lambda w: w.update({"extra": np.zeros(1)}), "no place for extra"),
        (lambda w: w.clear(), "two layers or more, got 0"),
    ],
)
def test_bad_weights(change, message):
    weights = dict(WEIGHTS)
    change(weights)
    with pytest.raises(ValueError, match=message):
        interop.convert_dcgan(weights)


def test_torch_files_are_read_safely(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({"net": {k: torch.from_numpy(np.array(a)) for k, a in WEIGHTS.items()}}, path)
    found = interop.read_torch(path)["net"]
    for name, a in WEIGHTS.items():
        np.testing.assert_array_equal(found[name], a)
    net, variables, _ = interop.convert_dcgan(interop.read_torch(path))
    layers = []
    for i in range(3):
        out, inputs = WEIGHTS[f"main.{3 * i}.weight"].shape[1::-1]
        how = {"stride": 1, "padding": 0} if i == 0 else {"stride": 2, "padding": 1}
        layers.append(torch.nn.ConvTranspose2d(inputs, out, 4, bias=False, **how))
        layers += [torch.nn.BatchNorm2d(out), torch.nn.ReLU()] if i < 2 else [torch.nn.Tanh()]
    theirs = torch.nn.Module()
    theirs.main = torch.nn.Sequential(*layers)
    theirs.load_state_dict(torch.load(path, weights_only=True)["net"])
    theirs.eval()
    z = RNG.normal(size=(3, 6)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs.main(torch.from_numpy(z)[:, :, None, None]).numpy()
    np.testing.assert_allclose(net.apply(variables, z), wanted.transpose(0, 2, 3, 1), atol=1e-5)


def test_files_with_code_in_them_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    torch.save(pathlib.PurePosixPath("anything that is not a tensor"), path)
    with pytest.raises(ValueError, match="no weights that can be read safely"):
        interop.read_torch(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no weights that can be read safely"):
        interop.read_torch(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(ValueError, match="no weights that can be read safely"):
        interop.read_torch(path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        interop.read_torch(tmp_path / "nowhere.pth")
