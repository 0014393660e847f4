"""A small method with every kind of state a run can have, and a run of it in its own process."""

import hashlib
import json
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from selfsup import distributed
from selfsup.method import Method, Views
from selfsup.optim import Optim
from selfsup.teacher import Teacher

BATCH, SIZE = 8, 12


class Tiny(Method):
    """Batch norm, dropout, random masks, a teacher, a queue and a centre."""

    views = Views(strong=2)
    optim = Optim("adamw", lr=2e-2, per=BATCH, weight_decay=0.1, weight_decay_end=0.2, clip=1.0)

    def __init__(self, across: bool = False, dropout: float = 0.1):
        encoder = nn.Sequential(
            nn.Linear(SIZE, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8)
        )
        super().__init__(encoder)
        self.across_batch = across
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, 8))
        self.teacher = Teacher(encoder)
        self.register_buffer("queue", torch.randn(16, 8))
        self.register_buffer("centre", torch.zeros(8))

    def loss(self, views, progress):
        x1, x2 = views
        hidden = distributed.rand(len(x1), SIZE, x1.device) < 0.2
        h = self.encoder(x1.masked_fill(hidden, 0.0))
        z = normalize(self.head(h), dim=-1)
        with torch.no_grad():
            target = self.teacher(x2)
            everyone = distributed.gather(target.float())  # state is the same on all ranks
            self.centre.lerp_(everyone.mean(0), 0.1)
            target = normalize(target - self.centre, dim=-1)
        logits = torch.cat([(z * target).sum(-1, keepdim=True), z @ self.queue.clone().T], 1) / 0.2
        everyone = normalize(everyone - self.centre, dim=-1)
        self.queue.copy_(torch.cat([everyone, self.queue])[: len(self.queue)])
        self.watch = {"embedding": h.detach()}
        zeros = torch.zeros(len(x1), dtype=torch.long)
        return {"contrast": cross_entropy(logits, zeros), "size": 0.01 * z.square().sum(-1).mean()}

    def after_step(self, progress):
        self.teacher.follow(self.encoder, 0.9)


class Local(Method):
    """Every sample for itself: cutting a batch into parts changes nothing but rounding."""

    views = Views(light=1)
    optim = Optim("sgd", lr=0.05, per=BATCH, weight_decay=0.0, warmup=0.0)

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 4)))
        self.decoder = nn.Linear(4, SIZE)

    def loss(self, views, progress):
        (x,) = views
        h = self.encoder(x)
        self.watch = {"embedding": h.detach()}
        return {"rebuild": (self.decoder(h) - x).square().mean()}


class Poisoned(Method):
    """Fails where it is told to, having touched a buffer first."""

    views = Views(light=1)
    optim = Optim("adamw", lr=1e-2, per=BATCH, warmup=0.0)

    def __init__(self, steps=(), kind: str = "loss"):
        super().__init__(nn.Sequential(nn.Linear(SIZE, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)))
        self.steps, self.kind = set(steps), kind

    def loss(self, views, progress):
        (x,) = views
        h = self.encoder(x)
        self.watch = {"embedding": h.detach()}
        value = (h - x[:, :4]).square().mean()
        if int(x[0, -1]) in self.steps:  # batches carry their number
            value = value * float("nan") if self.kind == "loss" else value + _Steep.apply(h).sum()
        return {"error": value}


class _Steep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, dy):
        return torch.full_like(dy, torch.inf)


class Samples:
    """Views of a step as a function of the step: noise around one of sixty-four fixed samples."""

    def __init__(self, views: int = 2, batch: int = BATCH, numbered: bool = False):
        self.views, self.batch, self.numbered = views, batch, numbered
        self.data = torch.randn(64, SIZE, generator=torch.Generator().manual_seed(7))
        self.asked: list[int] = []

    def __call__(self, step, part=0, parts=1):
        self.asked.append(step)
        generator = torch.Generator().manual_seed(step)
        x = self.data[torch.randint(64, (self.batch,), generator=generator)]
        views = [x + 0.1 * torch.randn(x.shape, generator=generator) for _ in range(self.views)]
        if self.numbered:
            for view in views:
                view[:, -1] = step
        shards = parts * distributed.world()
        rows = self.batch // shards
        at = (distributed.rank() * parts + part) * rows
        return [view[at : at + rows] for view in views]


def tensors_hash(path: Path) -> dict[str, str]:
    """A hash of each tensor file of a checkpoint."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.glob("*.safetensors")}


def without_time(rows) -> list[dict]:
    """Rows of metrics without what the clock and the counters of energy say."""
    told = ("speed/", "energy/")
    return [
        {k: v for k, v in row.items() if k != "time" and not k.startswith(told)} for row in rows
    ]


def pretrain(folder, steps=24, fault="", limit=0, **settings) -> int:
    """Train Tiny in this process; the exit code the command line would give."""
    from selfsup.errors import SelfsupError
    from selfsup.run import Run
    from selfsup.stop import Stop
    from selfsup.train import train

    torch.set_num_threads(1)
    os.environ["SELFSUP_FAULT"] = fault
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    torch.manual_seed(0)
    stop = Stop()
    stop.install()
    settings = {"every": 2, "checkpoint_seconds": 0.0, "precision": "fp32"} | settings
    try:
        outcome = train(
            Tiny(), Samples(), batch=BATCH, steps=steps, run=Run(folder), stop=stop, **settings
        )
    except SelfsupError as error:
        with suppress(OSError):  # there may be no room even for this
            (Path(folder) / "error.json").write_text(json.dumps(error.to_json()))
        return error.exit_code
    return outcome.exit_code


def _child(function, args, settings) -> None:
    os._exit(function(*args, **settings))  # no handlers of the test process run


def elsewhere(function, *args, wait=True, **settings):
    """Call a function in a fresh process; its exit code, negative for the signal that ended it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["selfsup.train", "tiny", "torch._dynamo"])
    process = context.Process(target=_child, args=(function, args, settings))
    process.start()
    if not wait:
        return process
    process.join(60)
    assert process.exitcode is not None, "hangs"
    return process.exitcode
