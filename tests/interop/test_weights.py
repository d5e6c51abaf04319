"""Weights of others into our networks and back, without their libraries.

Truth: numbers drawn at random come back to the bit, with the network found anew; how queries, keys
and values lie in published tensors, by numpy; published numbers of parameters. That outputs are
theirs is in `test_weights_torch`.
"""

import json

import jax
import numpy as np
import pytest

from jaxdiff import interop, models
from jaxdiff.interop import adm_tables, diffusers_dit, diffusers_unet, names, score_sde, weights

pytest.importorskip("safetensors")

SONG = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
CARRIED = {"embedding": "fourier", "waves": 2, "encoder": "residual", "taps": (1.0, 3.0, 3.0, 1.0)}
UNET = {"channels": 12, "multipliers": (1, 3), "blocks": 1, "groups": 4, "endpoint": False}
ADM = {"channels": 32, "multipliers": (1, 2), "blocks": 2, "endpoint": False}
DIT = {"width": 24, "depth": 2, "heads": 3, "num_classes": 5, "waves": 256, "positions": "sincos"}
IMAGE = (8, 8, 3)
UNET_4 = models.UNet(**UNET, attention=(4,), head_channels=6)


def drawn(net, shape=IMAGE, seed=0):
    """Parameters from a normal distribution, as a tree; nothing is compiled."""
    rng = np.random.default_rng(seed)
    params = {}
    for path, size in names.shapes_of(net, shape).items():
        *modules, leaf = path.split("/")
        place = params
        for module in modules:
            place = place.setdefault(module, {})
        place[leaf] = rng.normal(size=size).astype(np.float32)
    return params


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def diffusers(net, params, shape, **options):
    return interop.from_diffusers(*interop.to_diffusers(net, params, shape), **options)


def flipped(net, params, shape):
    return interop.from_diffusers(
        *interop.to_diffusers(net, params, shape, cosines_first=True), null_label=True
    )


def edm(net, params, shape):
    return interop.from_edm(interop.to_edm(net, params, shape))


def adm(order, **heads):
    def way(net, params, shape):
        found = interop.to_adm(net, params, shape, order=order)
        return interop.from_adm(found, size=shape[0], order=order, **heads)

    return way


def song(net, params, shape):
    return interop.from_score_sde(interop.to_score_sde(net, params, shape), size=shape[0])


LONG = pytest.mark.slow


@pytest.mark.parametrize(
    ("net", "way"),
    [
        pytest.param(
            models.UNet(**UNET, attention=(4,), head_channels=6, resample="conv_around"),
            diffusers,
            marks=LONG,
        ),
        pytest.param(
            models.UNet(**UNET, attention=(), middle_attention=True, scale_shift=True),
            diffusers,
            marks=LONG,
        ),
        (models.UNet(**UNET, attention=(8,), num_classes=3, out_channels=6), flipped),
        (models.DiT(**DIT, epsilon=1e-6, perceptron_epsilon=1e-5), diffusers),
        pytest.param(
            models.DiT(**DIT, epsilon=1e-6, patch=4, out_channels=6), diffusers, marks=LONG
        ),
        pytest.param(models.SongUNet(**SONG, cond_dim=9), edm, marks=LONG),
        (models.SongUNet(**{**SONG, **CARRIED}, num_classes=4, out_channels=2), edm),
        pytest.param(models.DhariwalUNet(64, (1, 2), 1, (4,), num_classes=4), edm, marks=LONG),
        pytest.param(
            models.DhariwalUNet(128, (1, 1), 1, (4,), num_classes=4),
            adm("legacy", head_channels=64),
            marks=LONG,
        ),
        pytest.param(
            models.DhariwalUNet(128, (1, 1), 1, (8,), out_channels=6),
            adm("new", heads=2),
            marks=LONG,
        ),
        (models.UNet(**ADM, attention=(4,), heads=4, resample="conv_around"), adm("new", heads=4)),
        pytest.param(
            models.UNet(
                **ADM, attention=(), middle_attention=True, head_channels=8, resample="pool"
            ),
            adm("legacy", head_channels=8),
            marks=LONG,
        ),
        pytest.param(models.SongUNet(**SONG), song, marks=LONG),
        (models.SongUNet(**{**SONG, **CARRIED, "multipliers": (2, 1, 1)}), song),
    ],
)
def test_there_and_back(net, way):
    """The identity to the bit, the network included: dropout and the like are as they begin."""
    params = drawn(net)
    found = way(net, params, IMAGE)
    same(found.params, params)
    assert found.shape == IMAGE
    fields = {**vars(net), "head_channels": None, "heads": None}
    wanted = {
        k: v for k, v in fields.items() if not k.startswith("_") and k not in ("parent", "name")
    }
    assert {k: getattr(found.net, k) for k in wanted if "head" not in k} == {
        k: v for k, v in wanted.items() if "head" not in k
    }


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_order_of_queries_keys_and_values(order):
    """In the legacy order a head's queries, keys and values are neighbours, in the new order all
    queries come first: the published code splits heads before, or after, which of three."""
    net = models.UNet(**ADM, attention=(4,), heads=4, resample="conv_around")
    params = drawn(net)
    theirs = interop.to_adm(net, params, IMAGE, order=order)["input_blocks.4.1.qkv.bias"]
    head = theirs.reshape((4, 3, -1) if order == "legacy" else (3, 4, -1))
    head = head if order == "legacy" else head.transpose(1, 0, 2)
    ours = params["down_1_0_attention"]["qkv"]["bias"].reshape(3, 4, -1)  # which, head, channel
    np.testing.assert_array_equal(head.transpose(1, 0, 2), ours)
    song = models.SongUNet(**SONG)
    params = drawn(song)
    own = interop.to_score_sde(song, params, IMAGE)
    place = "all_modules.6."  # two of the time, convolution, block, halving, block, attention
    kernel = params["enc_4x4_block0"]["qkv"]["kernel"][0, 0].reshape(16, 16, 3)
    for i in range(3):  # channels outermost, as in EDM's
        np.testing.assert_array_equal(own[f"{place}NIN_{i}.W"], kernel[..., i])


def test_what_is_wrong_is_said_at_once():
    net = models.SongUNet(**SONG)
    own = interop.to_edm(net, drawn(net), IMAGE)
    own["extra"] = np.zeros(2, np.float32)
    del own["enc.8x8_block0.conv1.bias"]
    own["dec.8x8_aux_norm.bias"] = np.zeros(3, np.float32)
    own["map_layer1.bias"] = own["map_layer1.bias"].astype(np.int32)
    own["enc.4x4_down.conv0.resample_filter"] = np.ones((1, 1, 2, 2), np.float32) / 3
    with pytest.raises(ValueError, match="5 in all") as caught:
        interop.from_edm(own, net)
    for words in (
        "there is no place for extra float32 [2]",
        "enc.8x8_block0.conv1.bias [8] is missing",
        "dec.8x8_aux_norm.bias must be [8], got float32 [3]",
        "map_layer1.bias must be [32] of float32, float16, bfloat16, got int32 [32]",
        "enc.4x4_down.conv0.resample_filter must be the constant",
    ):
        assert words in str(caught.value)
    many = {f"more_{i}": np.zeros(1, np.float32) for i in range(20)}
    with pytest.raises(ValueError, match=r"25 in all: .*; \.\.\.") as caught:
        interop.from_edm(
            {**own, **many, "extra": np.zeros(2), "map_layer1.bias": np.zeros(32)}, net
        )
    assert str(caught.value).count(";") == 8
    with pytest.raises(ValueError, match="params must be those of the network"):
        interop.to_edm(net.clone(blocks=2), drawn(net), IMAGE)


def config(**changes):
    found, own = interop.to_diffusers(UNET_4, drawn(UNET_4), IMAGE)
    return {**found, **changes}, own


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time_embedding_type": "fourier"}, "time_embedding_type must be 'positional', got 'fou"),
        ({"block_out_channels": [12, 20]}, "block_out_channels must be multiples of the first"),
        ({"up_block_types": ["UpBlock2D"] * 2}, "which mirrors down_block_types"),
        ({"down_block_types": ["SkipDownBlock2D"] * 2}, "down_block_types must be DownBlock2D or"),
        ({"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": None}, "attn_norm_num"),
        ({"attention_head_dim": 8}, "attention_head_dim must be None or a divisor of"),
        ({"invented": 1}, "invented=1 is no field that is known"),
        ({"_class_name": "AutoencoderKL"}, "_class_name must be one of UNet2DModel, DiT"),
        ({"_class_name": ["UNet2DModel"]}, "_class_name must be one of UNet2DModel, DiT"),
        ({"sample_size": 10**9}, "images must be of 1 to"),
        ({"norm_eps": -1}, "norm_eps must be above 0, got -1"),
        ({"flip_sin_to_cos": "yes"}, "flip_sin_to_cos must be True or False, got 'yes'"),
        ({"block_out_channels": None}, "config describes no UNet2DModel"),
        ({"sample_size": [8, 4]}, "sample_size must be the side of a square"),
        ({"norm_num_groups": 5}, "groups=5 must divide"),
        ({"layers_per_block": 2}, "is missing"),
    ],
)
def test_configurations_that_ours_cannot_be(changes, words):
    with pytest.raises(ValueError, match=words):
        interop.from_diffusers(*config(**changes))


def test_networks_that_theirs_cannot_be():
    unet, dit, song = models.UNet(**UNET, attention=()), models.DiT(**DIT), models.SongUNet(**SONG)
    for call, words in (
        (lambda: interop.to_diffusers(unet.clone(skip="add"), {}, IMAGE), "skip='concat'"),
        (lambda: interop.to_diffusers(unet.clone(cond_dim=9), {}, IMAGE), "cond_dim=0"),
        (lambda: interop.to_diffusers(unet, {}, (8, 4, 3)), "square"),
        (lambda: interop.to_diffusers(dit.clone(positions="learned"), {}, IMAGE), "'sincos'"),
        (lambda: interop.to_diffusers(song, {}, IMAGE), "a UNet or a DiT, got SongUNet"),
        (lambda: interop.to_adm(unet.clone(endpoint=True), {}, IMAGE), "endpoint=False"),
        (lambda: interop.to_adm(models.DhariwalUNet(64), {}, IMAGE), "128 channels or more"),
        (lambda: interop.to_adm(dit, {}, IMAGE), "a DhariwalUNet or a UNet, got DiT"),
        (lambda: interop.to_edm(unet, {}, IMAGE), "a SongUNet or a DhariwalUNet"),
        (
            lambda: interop.to_edm(models.DhariwalUNet(head_channels=32), {}, IMAGE),
            "head_channels=64",
        ),
        (lambda: interop.to_score_sde(song.clone(num_classes=2), {}, IMAGE), "num_classes=0"),
        (lambda: interop.to_score_sde(unet, {}, IMAGE), "must be a SongUNet"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_other_state_dictionaries():
    song, unet = (
        models.SongUNet(**SONG),
        models.UNet(**ADM, attention=(4,), heads=4, resample="pool"),
    )
    as_edm = interop.to_edm(song, drawn(song), IMAGE)
    as_adm = interop.to_adm(unet, drawn(unet), IMAGE)
    as_sde = interop.to_score_sde(song, drawn(song), IMAGE)
    one = np.zeros((3, 3, 1, 1), np.float32)
    last = {n.replace("Conv_1", "Conv_3"): a for n, a in as_sde.items()}
    for call, words in (
        (lambda: interop.from_edm({}), "enc.HxW_conv.weight"),
        (lambda: interop.from_edm({**as_edm, "enc.4x4_aux_skip.weight": one}), "'skip'"),
        (lambda: interop.from_adm(as_adm, size=8), "heads or head_channels"),
        (lambda: interop.from_adm(as_adm, size=8, heads=4, order="old"), "legacy or new"),
        (lambda: interop.from_adm({}, size=8, heads=4), "must hold time_embed.0.weight"),
        (lambda: interop.from_adm(as_adm, size=8, heads=4, null_label=True), "two classes"),
        (lambda: interop.from_score_sde(as_edm, size=8), "named all_modules.N"),
        (lambda: interop.from_score_sde(last, size=8), "do not fit|is missing|blocks"),
        (
            lambda: interop.from_score_sde({"all_modules.0.Conv.weight": one}, size=8),
            "all_modules.0 is not supported",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize(
    "way",
    ["diffusers", *(pytest.param(n, marks=pytest.mark.slow) for n in ("edm", "adm", "score_sde"))],
)
def test_damaged_tensors(way):
    """Whatever becomes of the tensors that tell the network, a ValueError says so."""
    unet = models.UNet(**ADM, attention=(4,), heads=4, resample="pool")
    song = models.SongUNet(**SONG)
    config, own = interop.to_diffusers(UNET_4, drawn(UNET_4), IMAGE)
    read, own = {
        "diffusers": (lambda w: interop.from_diffusers(config, w), own),
        "edm": (interop.from_edm, interop.to_edm(song, drawn(song), IMAGE)),
        "adm": (
            lambda w: interop.from_adm(w, size=8, heads=4),
            interop.to_adm(unet, drawn(unet), IMAGE),
        ),
        "score_sde": (
            lambda w: interop.from_score_sde(w, size=8),
            interop.to_score_sde(song, drawn(song), IMAGE),
        ),
    }[way]
    infinite = lambda a: np.full_like(a, np.inf)  # noqa: E731
    ways = (lambda a: a[None], lambda a: a.sum(), lambda a: a[:0], lambda a: a.tolist(), infinite)
    for name, a in own.items():
        if a.ndim > 1 and "resample" not in name:
            for damaged in ways:
                with pytest.raises(ValueError, match=r"weights|all_modules|must"):
                    read({**own, name: damaged(a)})
    for given in (None, [own], {**own, 1: np.zeros(3)}, {"model": own, "ema": 3}, {"model": [1]}):
        with pytest.raises(ValueError, match="weights"):
            read(given)


def test_prefixes_and_averages():
    """What stands before names: "module.", "model."; and the average that a checkpoint has."""
    net = models.SongUNet(**{**SONG, **CARRIED})
    one, two = drawn(net), drawn(net, seed=1)
    two["map_noise"] = one["map_noise"]  # does not learn, so has no average
    own = {f"module.model.{n}": a for n, a in interop.to_edm(net, one, IMAGE).items()}
    same(interop.from_edm(own).params, one)
    model, average = (interop.to_score_sde(net, p, IMAGE) for p in (one, two))
    shadow = [a for n, a in average.items() if n != "all_modules.0.W"]
    model = {f"module.{n}": a for n, a in [*model.items(), ("sigmas", np.ones(3))]}
    order = {f"module.{n}" for n in average}
    checkpoint = {"model": model, "ema": {"shadow_params": shadow}, "step": 3}
    assert order <= set(model)
    same(interop.from_score_sde(checkpoint, size=8).params, two)
    checkpoint["ema"]["shadow_params"] = shadow[1:]
    with pytest.raises(ValueError, match="one for each of"):
        interop.from_score_sde(checkpoint, size=8)


def test_older_files():
    """Attention under its older names; positions that were once saved: w_i = 10000**(-i / h), the
    column first, as in `tests/models/test_published_options.py`."""
    config, own = interop.to_diffusers(UNET_4, drawn(UNET_4), IMAGE)
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {}
    for name, a in own.items():
        for now, before in new.items():
            name = name.replace(f".{now}.", f".{before}.") if "attentions" in name else name
        older[name] = a
    assert "down_blocks.1.attentions.0.proj_attn.bias" in older
    same(interop.from_diffusers(config, older).params, interop.from_diffusers(config, own).params)
    dit = models.DiT(**DIT, epsilon=1e-6, patch=4)
    params = drawn(dit)
    config, own = interop.to_diffusers(dit, params, IMAGE)
    angles = np.outer([0, 1], 10_000.0 ** (-np.arange(6) / 6))
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 1)
    table = np.stack([np.concatenate([waves[c], waves[r]]) for r in (0, 1) for c in (0, 1)])[None]
    own["pos_embed.pos_embed"] = table.astype(np.float32)
    fields = {**config, "_class_name": "Transformer2DModel", "num_vector_embeds": None}
    same(interop.from_diffusers(fields, own).params, params)
    own["pos_embed.pos_embed"] = table[:, ::-1].astype(np.float32)
    with pytest.raises(ValueError, match=r"1 in all: pos_embed\.pos_embed must be the constant"):
        interop.from_diffusers(fields, own)


def test_folders_and_half_precision(tmp_path):
    """bfloat16 is the upper half of float32: of numbers with few digits both hold the same."""
    net = UNET_4
    params = jax.tree.map(lambda a: np.round(4 * a) / 4, drawn(net))
    interop.write_diffusers(tmp_path / "unet", net, params, IMAGE)
    found = interop.read_diffusers(tmp_path)  # as a pipeline's folder has it
    assert found.net == net
    same(found.params, params)
    config, own = interop.to_diffusers(net, params, IMAGE)
    for dtype in (np.float16, jax.numpy.bfloat16):
        half = {name: a.astype(dtype) for name, a in own.items()}
        same(interop.from_diffusers(config, half).params, params)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    header, data = {}, b""
    for name, a in half.items():
        span = [len(data), len(data) + a.nbytes]
        header[name] = {"dtype": "BF16", "shape": a.shape, "data_offsets": span}
        data += a.tobytes()
    words = json.dumps(header).encode()
    path.write_bytes(len(words).to_bytes(8, "little") + words + data)
    same(interop.read_diffusers(tmp_path).params, params)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        interop.read_diffusers(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        weights.read_safetensors(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        interop.read_diffusers(tmp_path)
    (tmp_path / "unet" / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="must hold names and values"):
        interop.read_diffusers(tmp_path)
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        interop.read_diffusers(tmp_path)


FULL = {
    "ddpm_cifar10": (models.ddpm_cifar10(), (32, 32, 3), 35_746_307),
    "DiT-XL/2": (
        models.dit_of_size(
            "XL", num_classes=1000, out_channels=8, waves=256, positions="sincos", epsilon=1e-6
        ),
        (32, 32, 4),
        749_826_464,
    ),
    "adm256": (
        models.DhariwalUNet(256, (1, 1, 2, 2, 4, 4), 2, out_channels=6, num_classes=1000),
        (256, 256, 3),
        553_838_086,
    ),
    "ncsnpp": (
        models.ncsnpp_cifar10(multipliers=(1, 2, 2, 2), cond_dim=0),
        (32, 32, 3),
        62_758_915,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_published_sizes(name):
    """How many numbers are in the tensors that the published networks write. Truth: DDPM's of
    their release; the rest as PyTorch's own modules count them, which the papers round to: 675 M
    of DiT-XL/2 and 27 copies of its embeddings in diffusers' form, 554 M, 62.8 M."""
    net, shape, wanted = FULL[name]
    shapes = names.shapes_of(net, shape)
    if isinstance(net, models.DiT):
        table = diffusers_dit.table(net)
    elif isinstance(net, models.UNet):
        table = diffusers_unet.table(net, cosines_first=False, whole=False)
    elif isinstance(net, models.SongUNet):
        table = score_sde.table(net, shape[0])
    else:
        table = adm_tables.dhariwal(net, shape[0], shapes, "new")
    sizes = {path: int(np.prod(size)) for path, size in shapes.items()}
    found = sum(n * (1 + len(table[path].copies)) for path, n in sizes.items())
    assert found == wanted
    tensors = [name for path in shapes for name in (*table[path].names, *table[path].copies)]
    assert len(tensors) == len(set(tensors))
