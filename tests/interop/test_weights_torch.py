"""Outputs of foreign networks and of ours with their weights.

Truth: diffusers' own modules; for ADM and score_sde, whose code is in no package, PyTorch's
operations in the order in which their papers and code say that blocks come, weights looked up by
their published names (EDM's likewise in tests/models/test_edm_torch.py). Every weight is drawn
anew, so that no layer is zero. Float32 through some twenty layers, and sines of 871 radians that
two libraries round: 1e-4. Skipped unless PyTorch is there.
"""

import math

import jax
import numpy as np
import pytest

from jaxdiff import interop

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch.nn import functional  # noqa: E402

pytestmark = pytest.mark.slow

GENERATOR = torch.Generator().manual_seed(0)
STEPS = torch.tensor([3.0, 871.0])


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def redrawn(shapes):
    """Weights of such size that activations keep theirs."""
    made = {}
    for name, shape in shapes.items():
        weight = normal(*shape)
        if len(shape) > 1:
            weight = weight / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            weight = 1 + 0.3 * weight
        made[name] = weight
    return made


def compare(found, x, wanted, *more):
    args = [a.numpy() for a in (x.permute(0, 2, 3, 1), *more)]
    got = jax.jit(found.net.apply)({"params": found.params}, *args)
    wanted = wanted.permute(0, 2, 3, 1).numpy()
    assert 0.1 < np.abs(wanted).mean() < 10
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def blocks(*attends):
    """diffusers' names of levels."""
    down = ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)]
    return {"down_block_types": down, "up_block_types": up}


UNETS = {
    "no attention": {
        **blocks(False, False),
        "block_out_channels": (12, 24),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "add_attention": False,
    },
    "attention in the middle alone": {
        **blocks(False, False),
        "block_out_channels": (20, 20),
        "norm_num_groups": 5,
        "attention_head_dim": 10,
        "downsample_padding": 0,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "norm_eps": 1e-6,
    },
    "classes": {
        **blocks(False, True, True),
        "block_out_channels": (12, 36, 24),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "attention_head_dim": 6,
        "num_class_embeds": 5,
    },
    "scales and twice the outputs": {
        **blocks(True, False),
        "out_channels": 6,
        "block_out_channels": (18, 36),
        "norm_num_groups": 3,
        "attention_head_dim": 9,
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 3,
    },
}
DITS = {
    "learned variance": {"in_channels": 4, "out_channels": 8, "sample_size": 8, "num_layers": 3},
    "small patches": {"in_channels": 3, "sample_size": 6, "patch_size": 1, "norm_eps": 1e-6},
}


def saved(model, folder):
    """A model of diffusers with weights anew; tied where it has copies."""
    state = {name: tuple(a.shape) for name, a in model.state_dict().items()}
    drawn = redrawn(state)
    for name in list(drawn):
        if ".norm1.emb." in name:
            end = name.split(".norm1.emb.")[1]
            drawn[name] = drawn[f"transformer_blocks.0.norm1.emb.{end}"]
    model.load_state_dict(drawn)
    model.eval().save_pretrained(folder)
    return drawn


@pytest.mark.parametrize("name", UNETS)
def test_unet2dmodel(name, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DModel(sample_size=8, **UNETS[name])
    state = saved(model, tmp_path)
    found = interop.read_diffusers(tmp_path)
    x, more = normal(2, 3, 8, 8), {}
    if "num_class_embeds" in UNETS[name]:
        more = {"class_labels": torch.tensor([1, 4], dtype=torch.int32)}
    with torch.no_grad():
        wanted = model(x, STEPS, **more).sample
    compare(found, x, wanted, STEPS, *more.values())
    first = model.config.flip_sin_to_cos
    config, back = interop.to_diffusers(*found, cosines_first=first)
    assert set(back) == set(state)
    for key, a in back.items():
        np.testing.assert_array_equal(a, state[key].numpy())
    again = diffusers.UNet2DModel.from_config(config)
    again.load_state_dict({k: torch.from_numpy(a) for k, a in back.items()})
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(x, STEPS, **more).sample, wanted)


@pytest.mark.parametrize("name", DITS)
def test_dit(name, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    sizes = {"num_attention_heads": 3, "attention_head_dim": 8, "num_embeds_ada_norm": 7}
    model = diffusers.DiTTransformer2DModel(**{"num_layers": 2, **sizes, **DITS[name]})
    saved(model, tmp_path)
    found = interop.read_diffusers(tmp_path)
    x = normal(2, *found.shape[2:], *found.shape[:2])
    with torch.no_grad():
        wanted = model(x, STEPS, class_labels=torch.tensor([1, 7])).sample
    compare(found, x, wanted, STEPS, torch.tensor([1, -1], dtype=torch.int32))
    model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    pickled = interop.read_diffusers(tmp_path / "pickled")
    assert pickled.net == found.net
    jax.tree.map(np.testing.assert_array_equal, pickled.params, found.params)
    with torch.no_grad():
        last = model.transformer_blocks[-1].norm1.emb.timestep_embedder.linear_1.bias
        last += 1
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must be equal to transformer_blocks\.0"):
        interop.read_diffusers(tmp_path)


@pytest.mark.parametrize(
    ("kind", "config", "count"),
    [
        ("UNet2DModel", {**blocks(False, True, False, False), "norm_eps": 1e-6}, 35_746_307),
        ("UNet2DModel", {}, 274_056_163),
        ("DiTTransformer2DModel", {"out_channels": 8}, 749_826_464),
    ],
)
def test_names_of_full_size(kind, config, count):
    """google/ddpm-cifar10-32, their default UNet and DiT-XL/2, allocated nowhere."""
    diffusers = pytest.importorskip("diffusers")
    sizes = {"block_out_channels": (128, 256, 256, 256), "attention_head_dim": None}
    sizes |= {"downsample_padding": 0, "freq_shift": 1}
    config = {"sample_size": 32, **(sizes if config and kind[0] == "U" else {}), **config}
    with torch.device("meta"):
        model = getattr(diffusers, kind)(**config)
    assert sum(p.numel() for p in model.parameters()) == count
    empty = {k: np.broadcast_to(np.float32(0), a.shape) for k, a in model.state_dict().items()}
    lacking = dict(list(empty.items())[1:])
    with pytest.raises(ValueError, match=r"1 in all: \S+ \[.*\] is missing"):
        interop.from_diffusers({"_class_name": kind, **config}, lacking)


class Walk:
    """A network's operations, its weights by name."""

    def __init__(self, state):
        self.state = state

    def has(self, name):
        return name in self.state

    def linear(self, name, x):
        return functional.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def conv(self, name, x, stride=1):
        weight = self.state[f"{name}.weight"]
        side = weight.shape[-1] // 2
        return functional.conv2d(x, weight, self.state[f"{name}.bias"], stride, side)

    def norm(self, name, x, groups, epsilon):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.group_norm(x, groups, weight, bias, epsilon)


def waves(t, features, last):
    half = features // 2
    w = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / (half - last))
    return torch.sin(t[:, None] * w), torch.cos(t[:, None] * w)


class Adm(Walk):
    """Dhariwal and Nichol's UNet, legacy or new order of attention."""

    def __init__(self, state, *, heads, new, updown):
        super().__init__(state)
        self.heads, self.new, self.updown = heads, new, updown

    def residual(self, name, x, emb, size):
        resize = {
            "same": lambda z: z,
            "down": lambda z: functional.avg_pool2d(z, 2),
            "up": lambda z: functional.interpolate(z, scale_factor=2.0),
        }[size]
        h = resize(functional.silu(self.norm(f"{name}.in_layers.0", x, 32, 1e-5)))
        h, x = self.conv(f"{name}.in_layers.2", h), resize(x)
        e = self.linear(f"{name}.emb_layers.1", functional.silu(emb))[:, :, None, None]
        if e.shape[1] == 2 * h.shape[1]:
            scale, shift = e.chunk(2, 1)
            h = self.norm(f"{name}.out_layers.0", h, 32, 1e-5) * (1 + scale) + shift
        else:
            h = self.norm(f"{name}.out_layers.0", h + e, 32, 1e-5)
        h = self.conv(f"{name}.out_layers.3", functional.silu(h))
        skip = f"{name}.skip_connection"
        return h + (self.conv(skip, x) if self.has(f"{skip}.weight") else x)

    def attention(self, name, x):
        batch, width = x.shape[:2]
        h = self.norm(f"{name}.norm", x, 32, 1e-5).flatten(2).transpose(1, 2)
        weight, bias = (self.state[f"{name}.qkv.{leaf}"] for leaf in ("weight", "bias"))
        qkv = functional.linear(h, weight[..., 0], bias)
        if self.new:
            q, k, v = qkv.reshape(batch, -1, 3, self.heads, width // self.heads).unbind(2)
        else:
            q, k, v = qkv.reshape(batch, -1, self.heads, 3, width // self.heads).unbind(3)
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        weight, bias = (self.state[f"{name}.proj_out.{leaf}"] for leaf in ("weight", "bias"))
        h = functional.linear(h, weight[..., 0], bias)
        return x + h.transpose(1, 2).reshape(x.shape)

    def block(self, name, h, emb, size="same"):
        """What stands under one number, in order; `size` is of its last residual block."""
        parts = sorted(
            {
                int(n.split(".")[len(name.split("."))])
                for n in self.state
                if n.startswith(f"{name}.")
            }
        )
        for i, part in enumerate(parts):
            at = f"{name}.{part}"
            if self.has(f"{at}.in_layers.0.weight"):
                h = self.residual(at, h, emb, size if i == len(parts) - 1 else "same")
            elif self.has(f"{at}.qkv.weight"):
                h = self.attention(at, h)
            elif self.has(f"{at}.op.weight"):
                h = self.conv(f"{at}.op", h, 2)
            elif self.has(f"{at}.conv.weight"):
                h = self.conv(f"{at}.conv", functional.interpolate(h, scale_factor=2.0))
            else:
                h = self.conv(at, h)
        return h

    def __call__(self, x, t, y=None, *, levels, per):
        sines, cosines = waves(t, self.state["time_embed.0.weight"].shape[1], 0)
        emb = self.linear("time_embed.0", torch.cat([cosines, sines], 1))
        emb = self.linear("time_embed.2", functional.silu(emb))
        emb = emb if y is None else emb + self.state["label_emb.weight"][y]
        h, stack = x, []
        for i in range(levels * per):
            size = "down" if self.updown and i and i % per == 0 else "same"
            h = self.block(f"input_blocks.{i}", h, emb, size)
            stack.append(h)
        h = self.block("middle_block", h, emb)
        for i in range(levels * per):
            size = "up" if self.updown and i % per == per - 1 and i < levels * per - 1 else "same"
            h = self.block(f"output_blocks.{i}", torch.cat([h, stack.pop()], 1), emb, size)
        return self.conv("out.2", functional.silu(self.norm("out.0", h, 32, 1e-5)))


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("updown", [False, True])
def test_adm(new, updown):
    from jaxdiff import models
    from tests.interop.test_weights import drawn

    order = "new" if new else "legacy"
    if updown:
        net = models.DhariwalUNet(128, (1, 1), 1, (4,), out_channels=6, num_classes=4)
    else:
        net = models.UNet(
            channels=32,
            multipliers=(1, 2),
            attention=(4,),
            heads=2,
            resample="conv_around",
            endpoint=False,
            num_classes=4,
            scale_shift=new,
        )
    own = interop.to_adm(net, drawn(net), (8, 8, 3), order=order)
    state = redrawn({name: a.shape for name, a in own.items() if name != "label_emb.weight"})
    state["label_emb.weight"] = normal(4, own["label_emb.weight"].shape[1])
    arrays = {name: a.numpy() for name, a in state.items()}
    found = interop.from_adm(arrays, size=8, heads=2, order=order)
    x, y = normal(2, 3, 8, 8), torch.tensor([1, 3], dtype=torch.int32)
    walk = Adm(state, heads=2, new=new, updown=updown)
    wanted = walk(x, STEPS, y, levels=2, per=net.blocks + 1)
    compare(found, x, wanted, STEPS, y)


class Ncsnpp(Walk):
    """Song et al.'s NCSN++ and DDPM++, modules in the order of their numbers."""

    def __init__(self, state, taps):
        super().__init__(state)
        f = torch.outer(taps, taps)
        self.filter, self.number, self.margin = f / f.sum(), 0, (len(taps) - 1) // 2

    def next(self):
        self.number += 1
        return f"all_modules.{self.number - 1}"

    def resized(self, x, size):
        f, channels = self.filter, x.shape[1]
        f = f.tile([channels, 1, 1, 1])
        if size == "down":
            return functional.conv2d(x, f, None, 2, self.margin, 1, channels)
        if size == "up":
            return functional.conv_transpose2d(x, 4 * f, None, 2, self.margin, 0, channels)
        return x

    def groups(self, name, x):
        return self.norm(name, x, min(32, x.shape[1] // 4), 1e-6)

    def block(self, x, emb, size="same"):
        name = self.next()
        h = self.resized(functional.silu(self.groups(f"{name}.GroupNorm_0", x)), size)
        h = self.conv(f"{name}.Conv_0", h) + self.linear(f"{name}.Dense_0", emb)[:, :, None, None]
        h = self.conv(f"{name}.Conv_1", functional.silu(self.groups(f"{name}.GroupNorm_1", h)))
        x = self.resized(x, size)
        if self.has(f"{name}.Conv_2.weight"):
            x = self.conv(f"{name}.Conv_2", x)
        return self.attended((x + h) * math.sqrt(0.5))

    def attended(self, x):
        name = f"all_modules.{self.number}"
        if not self.has(f"{name}.NIN_0.W"):
            return x
        self.number += 1
        h = self.groups(f"{name}.GroupNorm_0", x).flatten(2).transpose(1, 2)
        q, k, v = (
            h @ self.state[f"{name}.NIN_{i}.W"] + self.state[f"{name}.NIN_{i}.b"] for i in range(3)
        )
        h = functional.scaled_dot_product_attention(q, k, v)
        h = h @ self.state[f"{name}.NIN_3.W"] + self.state[f"{name}.NIN_3.b"]
        return (x + h.transpose(1, 2).reshape(x.shape)) * math.sqrt(0.5)

    def __call__(self, x, t, *, levels, blocks):
        if self.has("all_modules.0.W"):
            angles = 2 * math.pi * t[:, None] * self.state[f"{self.next()}.W"]
            emb = torch.cat([torch.sin(angles), torch.cos(angles)], 1)
        else:
            emb = torch.cat(waves(t, self.state["all_modules.0.weight"].shape[1], 1), 1)
        for _ in range(2):
            emb = functional.silu(self.linear(self.next(), emb))
        image, h = x, self.conv(self.next(), x)
        stack = [h]
        for level in range(levels):
            for _ in range(blocks):
                h = self.block(h, emb)
                stack.append(h)
            if level < levels - 1:
                h = self.block(h, emb, "down")
                carried = f"all_modules.{self.number}.Conv2d_0"
                if self.has(f"{carried}.weight"):  # the filter first, then a convolution by strides
                    self.number += 1
                    wide = functional.pad(image, [self.margin + 1] * 4)
                    each = self.filter.tile([image.shape[1], 1, 1, 1])
                    wide = functional.conv2d(wide, each, groups=image.shape[1])
                    weight, bias = (self.state[f"{carried}.{leaf}"] for leaf in ("weight", "bias"))
                    h = image = (h + functional.conv2d(wide, weight, bias, 2)) * math.sqrt(0.5)
                stack.append(h)
        h = self.block(self.block(h, emb), emb)
        for level in reversed(range(levels)):
            for _ in range(blocks + 1):
                h = self.block(torch.cat([h, stack.pop()], 1), emb)
            if level:
                h = self.block(h, emb, "up")
        h = functional.silu(self.groups(self.next(), h))
        return self.conv(self.next(), h)


@pytest.mark.parametrize("carried", [False, True])
def test_score_sde(carried):
    from jaxdiff import models
    from tests.interop.test_weights import CARRIED, drawn

    net = models.SongUNet(
        channels=12, multipliers=(1, 2, 1), blocks=2, attention=(4,), **(CARRIED if carried else {})
    )
    own = interop.to_score_sde(net, drawn(net), (8, 8, 3))
    state = redrawn({name: a.shape for name, a in own.items()})
    found = interop.from_score_sde({name: a.numpy() for name, a in state.items()}, size=8)
    assert found.net == net
    x, t = normal(2, 3, 8, 8), torch.tensor([-1.3, 0.7]) if carried else STEPS
    walk = Ncsnpp(state, torch.tensor(net.taps))
    wanted = walk(x, t, levels=3, blocks=2)
    assert walk.number == 1 + max(int(name.split(".")[1]) for name in own)
    compare(found, x, wanted, t)
