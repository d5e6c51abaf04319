"""What `bench_core.py` times: training and sampling steps of one network, ours and torch's.

Each function builds something and returns a call without arguments that does it once. They take
names and numbers alone, so that another process can build the same with other devices.
"""

import contextlib
import dataclasses
import itertools
import math
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import convolutions
import jax
import jax.numpy as jnp
import numpy as np
import weights
from flax import linen as nn

from jaxdiff import grids, models, samplers, schedules, training
from jaxdiff.config import preset
from jaxdiff.denoiser import make_denoiser
from jaxdiff.training import parallel

__all__ = [
    "NETWORKS",
    "build",
    "count",
    "elsewhere",
    "our_draw",
    "our_training",
    "torch_draw",
    "torch_training",
    "twin",
]

SIZE, CLASSES, DECAY, RATE = 8, 10, 0.999, 1e-3
NETWORKS = {
    "unet": "the UNet of the digits preset",
    "concat": "a UNet with skips concatenated, resampled by convolutions",
    "dit": "a DiT: products of matrices alone",
}
"""Networks by name, all with classes and without dropout, for images of 8x8."""


def build(name: str, width: int) -> tuple[nn.Module, Any]:
    """A network of NETWORKS with random parameters; `width` is a UNet's first channels.

    Raises:
        ValueError: no such network.
    """
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {name!r}")
    unet = models.UNet(**dataclasses.asdict(preset("digits").model))
    unet = unet.clone(channels=width, dropout=0.0, num_classes=CLASSES)
    module = {
        "unet": unet,
        "concat": unet.clone(skip="concat", resample="conv"),
        "dit": models.DiT(width=8 * width, depth=4, heads=4, num_classes=CLASSES),
    }[name]
    inputs = jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    return module, weights.drawn(module, *inputs)


def count(tree: Any) -> int:
    """How many numbers are in a tree of arrays or tensors."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _examples(number: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (number, SIZE, SIZE, 1)).astype(np.float32)
    return {"x": x, "y": generator.integers(0, CLASSES, number).astype(np.int32)}


def _denoiser(apply: Callable, params: Any, cond: Any = None) -> Any:
    return make_denoiser(
        apply, params, parametrization="eps", time_feature="thousandths", cond=cond
    )


def our_training(
    name: str, width: int, batch: int, form: str = "plain", devices: int = 1
) -> Callable[[], Any]:
    """Makes one step of Adam and of the average."""
    module, params = build(name, width)
    if form == "plain":
        apply = module.apply
    else:
        apply = convolutions.through(convolutions.FORMS[form], module)
    loss = training.denoising_loss(_denoiser(apply, None), schedules.linear_vp(), cond="y")
    optimizer = training.adam(clip=None)
    over = parallel.mesh(devices, batch_size=batch)
    step = parallel.jit_step(training.make_train_step(loss, optimizer), over)
    hyper = {"lr": RATE, "ema_decay": DECAY}
    state = training.init_state(jax.random.key(1), params, optimizer, hyper=hyper)
    states = [parallel.replicate(state, over)]
    examples = parallel.split(jax.device_put(_examples(batch)), over)

    def run() -> Any:
        states[0], metrics = step(states[0], examples)
        return metrics["loss"]

    return run


def our_draw(name: str, width: int, images: int, steps: int, devices: int = 1) -> Callable[[], Any]:
    """Draws images by `steps` steps of DDIM."""
    module, params = build(name, width)
    grid = grids.uniform_log_snr(schedules.linear_vp(), steps)
    over = parallel.mesh(devices, batch_size=images)
    given = parallel.split(jax.device_put(_examples(images)), over)
    denoiser = _denoiser(module.apply, parallel.replicate(params, over), given["y"])
    key, x = jax.random.key(1), given["x"]
    return lambda: samplers.sample(key, denoiser, grid, x.shape, x_T=x)


def twin(name: str, width: int, threads: int = 1) -> tuple[Callable, list]:
    """The network in torch, (x [B, C, H, W], t [B], label [B]) to eps, and its parameters.

    For "concat" it is diffusers' UNet2DModel with the configuration nearest to ours and weights of
    its own, for the others the same function of the same parameters.
    """
    import torch
    import torch_networks

    torch.set_num_threads(threads)
    module, params = build(name, width)
    if name == "concat":
        model = _diffusers_unet(module)
        call = lambda x, t, label: model(x, t, class_labels=label).sample  # noqa: E731
        return call, list(model.parameters())
    p = torch_networks.tensors(params)
    leaves = [leaf.requires_grad_() for leaf in jax.tree.leaves(p)]
    if name == "dit":
        return torch_networks.dit(p, heads=module.heads, patch=module.patch), leaves
    fields = {"blocks": module.blocks, "groups": module.groups}
    return torch_networks.unet(p, levels=len(module.multipliers), **fields), leaves


def _diffusers_unet(module: models.UNet) -> Any:
    import diffusers

    levels = len(module.multipliers)
    return diffusers.UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=tuple(m * module.channels for m in module.multipliers),
        layers_per_block=module.blocks,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        add_attention=False,
        norm_num_groups=module.groups,
        num_class_embeds=CLASSES + 1,  # ours has a row for "no class"
        downsample_padding=0,
        freq_shift=1,
        flip_sin_to_cos=False,
    )


def _as_tensors(examples: dict[str, np.ndarray]) -> tuple[Any, Any]:
    import torch

    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(examples["x"], -1, 1)))
    return x, torch.from_numpy(examples["y"]).long()


def torch_training(call: Callable, leaves: list, batch: int) -> Callable[[], Any]:
    """Makes one step of Adam and of the average, on the loss of `our_training`."""
    import torch

    x0, label = _as_tensors(_examples(batch))
    optimizer = torch.optim.Adam(leaves, lr=RATE, fused=True)
    averages = [leaf.detach().clone() for leaf in leaves]
    schedule = schedules.linear_vp()
    slope = schedule.beta_max - schedule.beta_min

    def run() -> float:
        t = torch.rand(batch)
        integral = schedule.beta_min * t + 0.5 * slope * t**2
        alpha = (-0.5 * integral).exp()[:, None, None, None]
        noise = torch.randn_like(x0)
        x_t = alpha * x0 + (1 - alpha**2).sqrt() * noise
        loss = torch.nn.functional.mse_loss(call(x_t, 1000 * t, label), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, leaves, 1 - DECAY)
        return loss.item()

    return run


def torch_draw(call: Callable, images: int, steps: int) -> Callable[[], Any]:
    """Draws images by the same steps of DDIM, in a Python loop."""
    import torch

    x_T, label = _as_tensors(_examples(images))
    levels = grids.uniform_log_snr(schedules.linear_vp(), steps).levels
    levels = list(zip(*(np.asarray(a).tolist() for a in levels), strict=True))

    @torch.inference_mode()
    def run() -> np.ndarray:
        x = x_T
        for (t, alpha, sigma), (_, alpha_s, sigma_s) in itertools.pairwise(levels):
            eps = call(x, torch.full((images,), 1000 * t), label)
            x = alpha_s / alpha * (x - sigma * eps) + sigma_s * eps
        return x.numpy()

    return run


@contextlib.contextmanager
def elsewhere(devices: int, make: Callable, *arguments: Any) -> Iterator[Callable[[], None]]:
    """`make(*arguments, devices=devices)` in a process that has so many CPU devices.

    Their number cannot be changed once JAX has begun. The call that is given does the run there and
    waits for it; what comes back is that it is done.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, devices, make, arguments), daemon=True)
    process.start()
    there.close()

    def run() -> None:
        here.send(True)
        here.recv()  # EOFError or ConnectionError if it has ended

    try:
        yield run
    finally:
        here.close()
        process.join()


def _serve(pipe: Any, devices: int, make: Callable, arguments: tuple) -> None:
    jax.config.update("jax_num_cpu_devices", devices)
    run = make(*arguments, devices=devices)
    with contextlib.suppress(EOFError):
        while pipe.recv():
            jax.block_until_ready(run())
            pipe.send(True)
