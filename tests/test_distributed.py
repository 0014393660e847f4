"""Two processes compute what one does with the whole batch: losses, gradients, statistics, runs."""

import io
import json
import multiprocessing
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from every import KINDS, Rows, cases, make
from PIL import Image
from test_contract import ANY
from tiny import BATCH, Local, Poisoned, Samples, Tiny, without_time
from torch import nn

from selfsup import chunks, cli, distributed, machine, pretrain
from selfsup.distributed import GlobalBatchNorm
from selfsup.errors import SelfsupError
from selfsup.optim import Optim
from selfsup.run import Run
from selfsup.stop import Stop
from selfsup.train import train

torch.set_num_threads(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _serve(rank, world, port, pipe):
    """One rank: runs what it is sent until it is sent nothing."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with distributed.process_group():
        while job := pipe.recv():
            function, settings = job
            buffer = io.BytesIO()
            torch.save(function(**settings), buffer)
            pipe.send(buffer.getvalue())


class Ranks:
    """Two processes that wait for work, started once: importing torch takes longer than a test."""

    def __init__(self, world: int = 2):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["selfsup.train", "tiny", "torch._dynamo"])
        self.pipes, self.processes, port = [], [], free_port()
        for rank in range(world):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, port, there), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def __call__(self, function, **settings) -> list:
        for pipe in self.pipes:
            pipe.send((function, settings))
        results = []
        for pipe in self.pipes:
            assert pipe.poll(200), "a rank hangs"
            results.append(torch.load(io.BytesIO(pipe.recv()), weights_only=True))
        return results

    def close(self):
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.close()
            process.kill()
            process.join()


_ranks: Ranks | None = None


def on_ranks(function, **settings) -> list:
    """What `function` returns on each of two ranks: tensors, numbers, lists and dicts."""
    global _ranks
    _ranks = _ranks or Ranks()
    try:
        return _ranks(function, **settings)
    except BaseException:  # a rank died: the next test gets new ones
        _ranks.close()
        _ranks = None
        raise


@pytest.fixture(scope="module", autouse=True)
def _end():
    yield
    if _ranks is not None:
        _ranks.close()


STEPS = 3


def short_run(name, kind="image", shard=False, accumulate=1, chunk=None):
    """Losses, gradients of the first step, and everything that a few steps have moved."""
    method = make(name, kind)
    gradients = {}
    samples = Rows(kind, method.views.count)

    def keep(step, *rest):
        return samples(step, *rest)

    single = make(name, kind)
    chunks.cut(single, chunk)
    model = distributed.wrap(single, shard=shard)
    views = samples(0)
    torch.manual_seed(5)
    loss = sum(model(views, 0.5).values())
    loss.backward()
    loss = distributed.mean(loss.detach())
    inner = model.module if hasattr(model, "module") else model
    for key, p in inner.named_parameters():
        if p.grad is not None:
            gradients[key] = distributed.whole(p.grad).clone()

    rows = []
    # plain descent: AdamW would turn rounding of a zero gradient into a full step
    recipe = Optim("sgd", lr=0.05, per=BATCH, warmup=0.0, weight_decay=0.0, clip=1.0)
    settings = {"batch": BATCH, "steps": STEPS, "optim": recipe, "every": 1, "precision": "fp32"}
    settings |= {"shard": shard, "accumulate": accumulate, "chunk": chunk}
    train(method, keep, watch=rows.append, **settings)
    state = {k: distributed.whole(v).clone() for k, v in method.state_dict().items()}
    losses = [row["train/loss"] for row in rows]
    return {"loss": float(loss), "gradients": gradients, "state": state, "losses": losses}


# Losses whose large terms cancel in some gradients, which are then zero but for rounding
CANCEL = ("BYOL", "VICReg", "MSN")


def close(found, expected, tolerance, share=0.0):
    """Each beside its own size; with `share`, beside that part of the largest of all at least."""
    assert set(found) == set(expected)
    least = max(1e-3, share * max(float(value.abs().max()) for value in expected.values()))
    for key, value in expected.items():
        error = (found[key].double() - value.double()).abs().max()
        scale = value.double().abs().max().clamp_min(least)
        assert error <= tolerance * scale, (key, float(error), float(scale))


# With batch norm in the encoder where the method allows; also on tokens where it cuts what it sees
ON_TWO = [*cases("convolutional", *KINDS), *(c for c in cases(*KINDS) if c[0] not in ANY)]


@pytest.mark.parametrize(("name", "kind"), [*dict.fromkeys(ON_TWO), ("DINO", "image")])
def test_two_ranks_are_one_big_batch(name, kind):
    expected = short_run(name, kind)
    first, second = on_ranks(short_run, name=name, kind=kind)
    assert first["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert len(expected["gradients"]) > 5
    close(first["gradients"], expected["gradients"], 1e-4, 3e-3 if name in CANCEL else 0.0)
    assert first["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    close(first["state"], expected["state"], 1e-3)
    for key, value in first["state"].items():  # and the ranks stay one model
        assert torch.equal(value, second["state"][key]), key


def test_parts_and_ranks_together():
    expected = short_run("MAE")
    first, _ = on_ranks(short_run, name="MAE", accumulate=2)
    # other masks are drawn for other parts; the sizes of things stay
    assert first["losses"] == pytest.approx(expected["losses"], rel=0.2)


SHARDED = [("MAE", "image"), ("DINO", "image"), ("SimCLR", "convolutional")]


@pytest.mark.parametrize(("name", "kind"), SHARDED)
def test_sharded_ranks_are_one_big_batch(name, kind):
    expected = short_run(name, kind)
    first, second = on_ranks(short_run, name=name, kind=kind, shard=True)
    close(first["gradients"], expected["gradients"], 1e-4)
    assert first["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    close(first["state"], expected["state"], 1e-3)
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize(("name", "kind"), [("CLIP", "pairs"), ("DINO", "image"), ("CLM", "text")])
def test_encoders_in_parts_on_two_ranks_are_one_big_batch(name, kind, shard):
    expected = short_run(name, kind)
    first, second = on_ranks(short_run, name=name, kind=kind, chunk=3, shard=shard)
    close(first["gradients"], expected["gradients"], 1e-4)
    assert first["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    close(first["state"], expected["state"], 1e-3)
    for key, value in first["state"].items():
        assert torch.equal(value, second["state"][key]), key


def sharded_share() -> float:
    model = distributed.wrap(make("MAE", "image"), shard=True)
    held = sum(p.to_local().numel() for p in model.parameters())
    return held / sum(p.numel() for p in model.parameters())


def test_shards_are_shards():
    for share in on_ranks(sharded_share):
        assert share < 0.6


# -- batch norm ---------------------------------------------------------------------------------


def norm_run(shape, affine, momentum):
    """Outputs, gradients and statistics of a batch norm over this rank's rows."""
    torch.manual_seed(1)
    c = shape[1]
    norm = (nn.BatchNorm1d if len(shape) < 4 else nn.BatchNorm2d)(
        c, affine=affine, momentum=momentum
    )
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    module = nn.Sequential(norm)
    x, target = 1000 + torch.randn(2, *shape).double() * torch.arange(1, c + 1).view(
        1, 1, -1, *[1] * (len(shape) - 2)
    )
    if distributed.world() == 1:
        module = module.double()
    else:
        distributed.global_batch_norm(module)
        assert type(module[0]) is GlobalBatchNorm
    rows = len(x) // distributed.world()
    at = slice(distributed.rank() * rows, (distributed.rank() + 1) * rows)
    x, target = x[at], target[at]
    if distributed.world() > 1:
        x, target = x.float(), target.float()
    x.requires_grad_()
    for _ in range(2):
        y = module(x)
    (y * (target - 1000)).sum().backward()
    result = {"y": y.detach(), "dx": x.grad}
    for key, p in module[0].named_parameters():
        grad = p.grad.clone()
        if distributed.running():
            dist.all_reduce(grad)  # as DistributedDataParallel does
        result["d" + key] = grad
    statistics = dict(module[0].named_buffers())
    module.eval()
    result["eval"] = module(x).detach()
    return result | statistics


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(8, 5), (8, 3, 6), (4, 3, 5, 5)])
def test_global_batch_norm_against_torch_in_double(shape, affine, momentum):
    expected = norm_run(shape, affine, momentum)
    first, second = on_ranks(norm_run, shape=shape, affine=affine, momentum=momentum)
    for key in ("y", "dx", "eval"):
        both = torch.cat([first[key], second[key]])
        # the mean is a thousand times the deviation: a naive sum of squares would lose it all
        torch.testing.assert_close(both.double(), expected[key].double(), rtol=3e-3, atol=3e-3)
    for key in set(expected) - {"y", "dx", "eval"}:
        torch.testing.assert_close(
            first[key].double(), expected[key].double(), rtol=3e-3, atol=3e-3
        )
        assert torch.equal(first[key], second[key])


# -- runs ---------------------------------------------------------------------------------------


def whole_run(folder, limit=1000, steps=10, shard=False):
    """A run of Tiny in `folder`, stopped when batch `limit` is asked for."""
    torch.manual_seed(0)
    stop, samples = Stop(), Samples()

    def batches(step, part=0, parts=1):
        if step == limit and distributed.rank() == 0:  # one rank is told, all must leave
            stop.request()
        return samples(step, part, parts)

    recipe = Optim("sgd", lr=0.1, per=BATCH, weight_decay=0.0)
    method = Tiny(dropout=0.0)  # ranks share their generator: dropout is per rank
    outcome = train(
        method,
        batches,
        batch=BATCH,
        steps=steps,
        run=Run(folder),
        stop=stop,
        every=1,
        optim=recipe,
        shard=shard,
        precision="fp32",
    )
    return {"asked": samples.asked, "step": outcome.step, "code": outcome.exit_code}


@pytest.mark.parametrize("shard", [False, True])
def test_saved_on_two_ranks_resumes_on_one(shard, tmp_path):
    straight = whole_run(tmp_path / "one")
    parts = on_ranks(whole_run, folder=str(tmp_path / "two"), limit=4, shard=shard)
    assert [part["step"] for part in parts] == [5, 5] and parts[0]["code"] == 143
    rest = whole_run(tmp_path / "two")
    assert parts[0]["asked"] + rest["asked"] == straight["asked"] == [*range(10)]
    rows = [without_time(Run(tmp_path / name).metrics.read()) for name in ("one", "two")]
    for a, b in zip(*rows, strict=True):
        assert a["step"] == b["step"] and a["samples"] == b["samples"]
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=2e-3)
    states = [
        json.loads((Run(tmp_path / n).checkpoint / "state.json").read_text())
        for n in ("one", "two")
    ]
    assert states[0]["settings"] == states[1]["settings"]


def test_saved_on_one_rank_resumes_on_two(tmp_path):
    whole_run(tmp_path, limit=4)
    parts = on_ranks(whole_run, folder=str(tmp_path))
    assert [part["step"] for part in parts] == [10, 10]
    assert [part["asked"] for part in parts] == [[5, 6, 7, 8, 9]] * 2
    assert Run(tmp_path).done["step"] == 10
    assert [row["step"] for row in Run(tmp_path).metrics.read()] == [*range(1, 11)]


def resumed_twice(folder):
    """Two ranks, stopped and continued: the last losses."""
    whole_run(folder + "/parts", limit=3)
    whole_run(folder + "/parts")
    whole_run(folder + "/whole")
    return 0


def test_two_ranks_resume_bitwise(tmp_path):
    from tiny import tensors_hash

    on_ranks(resumed_twice, folder=str(tmp_path))
    runs = [Run(tmp_path / name) for name in ("parts", "whole")]
    assert tensors_hash(runs[0].checkpoint) == tensors_hash(runs[1].checkpoint)
    rows = [without_time(run.metrics.read()) for run in runs]
    assert rows[0] == rows[1]


def one_bad_rank(folder):
    torch.manual_seed(0)
    samples = Samples(views=1, numbered=True)

    def batches(step, part=0, parts=1):
        (x,) = samples(step, part, parts)
        if distributed.rank() == 0:
            x[:, -1] = 0  # only the other rank meets the poisoned number
        return [x]

    method = Poisoned([3], "loss")
    run = Run(folder)
    outcome = train(method, batches, batch=BATCH, steps=6, run=run, every=1, precision="fp32")
    kinds = [event["kind"] for event in outcome.events]
    finite = all(bool(v.isfinite().all()) for v in method.state_dict().values())
    return {"kinds": kinds, "finite": finite, "step": outcome.step}


def test_a_bad_number_on_one_rank_skips_the_step_on_all(tmp_path):
    for result in on_ranks(one_bad_rank, folder=str(tmp_path)):
        assert result == {"kinds": ["skipped"], "finite": True, "step": 6}


def timed():
    outcome = train(Local(), Samples(views=1), batch=BATCH, minutes=1.5 / 60)
    return {"step": outcome.step, "steps": outcome.steps}


def test_ranks_agree_on_how_many_steps_fit_into_the_minutes():
    first, second = on_ranks(timed)
    assert first == second and first["step"] == first["steps"]


def measured_differently():
    """Beside other programs, what pays can look different to each rank."""
    mixture = {0: True, 1: False}
    machine.bf16_pays = lambda device: mixture[distributed.rank()]
    seen = []

    class Seeing(Local):
        def loss(self, views, progress):
            seen.append(self.encoder(views[0]).dtype)
            return super().loss(views, progress)

    train(Seeing(), Samples(views=1), batch=BATCH, steps=1)
    return seen


def test_ranks_agree_on_the_precision():
    assert on_ranks(measured_differently) == [[torch.bfloat16], [torch.bfloat16]]


def rows_of_rand():
    torch.manual_seed(3)
    return distributed.rand(BATCH // distributed.world(), 5)


def test_masks_do_not_depend_on_the_number_of_ranks():
    assert torch.equal(torch.cat(on_ranks(rows_of_rand)), rows_of_rand())


def told_by_all():
    rank = distributed.rank()
    return distributed.collect([{"name": f"\udcff{i}", "code": "empty"} for i in range(3 * rank)])


def test_rows_of_all_ranks_are_collected():
    """As many as each has, also none; names that are no text survive."""
    expected = [{"name": f"\udcff{i}", "code": "empty"} for i in range(3)]
    assert on_ranks(told_by_all) == [expected, expected]


def torchrun(words, program, **environment):
    """`torchrun --nproc-per-node 2 PROGRAM ...`, as a user gives it."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    start += ["--master-addr", "localhost", "--master-port", str(free_port()), program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [*start, *words], env=environment, capture_output=True, text=True, timeout=200
    )


def test_torchrun_then_on_with_one_process(tmp_path, monkeypatch):
    """Stopped on two processes, the same command alone ends it, as one alone would have."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    draws = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i:02d}.png")
    (tmp_path / "photos" / "empty.png").write_bytes(b"")
    words = ["pretrain", str(tmp_path / "photos"), "--method", "simclr", "--encoder", "resnet18"]
    words += ["--resolution", "8", "--steps", "6", "--batch", "8", "--quiet"]
    sets = ("encoder.width=0.125", "method.hidden=32", "method.dim=16", "train.precision=fp32")
    words += [word for setting in sets for word in ("--set", setting)]

    (tmp_path / "told.py").write_text(TELLING)
    program = str(tmp_path / "told.py")
    both = [*words, "--out", str(tmp_path / "both")]
    done = torchrun(both, program, SELFSUP_FAULT="train.step:terminate:4")
    assert done.returncode != 0 and "exitcode  : 143" in done.stderr, done.stderr
    assert done.stdout.count("stopped at step 4 of 6") == 1  # the first process speaks for all
    for rank in range(2):  # one that still runs while Python ends may abort the process
        assert "gloo" not in (tmp_path / f"threads-{rank}").read_text()
    run = Run.open(tmp_path / "both")
    assert run.checkpoint.name == "step-000004" and run.status == "stopped at step 1"
    assert cli.main(both) == 0
    assert cli.main([*words, "--out", str(tmp_path / "alone")]) == 0

    sharded = [*words, "--shard", "--out", str(tmp_path / "sharded")]
    done = torchrun(sharded, program)
    assert done.returncode == 0, done.stderr
    for rank in range(2):  # each holds half of all weights
        assert float((tmp_path / f"share-{rank}").read_text()) == pytest.approx(0.5, abs=0.01)
    assert "shard = true" in (tmp_path / "sharded" / "resolved.toml").read_text()

    losses = []
    for name in ("both", "sharded", "alone"):
        run = Run.open(tmp_path / name)
        losses.append([row["train/loss"] for row in run.metrics.read()])
        counts = run.read_json("data/manifest.json")
        assert (counts["found"], counts["used"], counts["skipped"]) == (25, 24, 1)
    assert losses[0] == pytest.approx(losses[2], rel=1e-3) and len(losses[0]) == 2
    # its optimizer is another: Muon needs whole matrices
    assert losses[1][0] == pytest.approx(losses[2][0], rel=1e-3) and len(losses[1]) == 2


# `selfsup`, that also writes beside itself which share of the weights its process holds, and the
# names of the threads that its end has left
TELLING = """
import os
import sys
from pathlib import Path
from selfsup import cli, distributed

wrap = distributed.wrap

def telling(method, **settings):
    model = wrap(method, **settings)
    weights = list(model.parameters())
    held = sum(getattr(p, "_local_tensor", p).numel() for p in weights)
    share = held / sum(p.numel() for p in weights)
    here.with_name(f"share-{distributed.rank()}").write_text(str(share))
    return model

distributed.wrap = telling
here = Path(__file__)
code = cli.main(sys.argv[1:])
names = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
here.with_name(f"threads-{os.environ['RANK']}").write_text("".join(names))
sys.exit(code)
"""


def refused():
    try:
        train(Local(), Samples(views=1), batch=7, steps=2)
    except SelfsupError as error:
        return error.to_json()
    return {}


def test_a_batch_that_ranks_cannot_share():
    for error in on_ranks(refused):
        assert error["code"] == "E801" and "--batch 6" in error["do"]


def one_network(folder):
    try:
        pretrain(f"{folder}/graph", steps=1, out=f"{folder}/run", quiet=True)
    except SelfsupError as error:
        return error.to_json()
    return {}


def test_one_network_is_not_for_several_processes(tmp_path):
    """Each would compute the whole of it: that is said, and one process does it."""
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "edges.csv").write_text("a,b\n0,1\n1,2\n2,3\n3,4\n4,5\n")
    np.save(tmp_path / "graph" / "features.npy", np.eye(6, dtype=np.float32))
    for error in on_ranks(one_network, folder=str(tmp_path)):
        assert error["code"] == "E801" and "without torchrun" in error["do"]
    assert not (tmp_path / "run").exists()
    assert one_network(tmp_path) == {} and Run(tmp_path / "run").done["step"] == 1


def ragged_rows():
    """More rows on the second rank, and none at all on the first in the end."""
    rank, world, found = distributed.rank(), distributed.world(), []
    for sizes in ((1, 4), (0, 3)):
        mine = range(sum(sizes)) if world == 1 else range(sizes[rank])
        first = sum(sizes[:rank])
        x = torch.tensor([[float(first + i), 1.0] for i in mine]).reshape(-1, 2).requires_grad_()
        rows, own = distributed.gather_ragged(x)
        assert torch.equal(rows[own], x)
        (rows[:, :1] * torch.arange(len(rows))[:, None]).sum().backward()
        found += [rows.detach(), x.grad / world]
    return found


def test_rows_are_gathered_from_ranks_that_have_more_or_fewer():
    expected, (first, second) = ragged_rows(), on_ranks(ragged_rows)
    for i in (0, 2):
        assert torch.equal(first[i], expected[i]) and torch.equal(second[i], expected[i])
        assert torch.equal(torch.cat([first[i + 1], second[i + 1]]), expected[i + 1])


def test_everything_is_the_identity_on_one_process():
    x = torch.randn(3)
    assert distributed.gather(x) is x and distributed.mean(x) is x and distributed.whole(x) is x
    assert distributed.agree(True, False) == [True, False] and distributed.share(5) == 5
    method = Local()
    assert distributed.wrap(method) is method
    with distributed.process_group():
        assert not distributed.running()
