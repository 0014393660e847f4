"""The plan: pure choices from facts, each with a reason; small data; budgets."""

from dataclasses import replace

import pytest

from selfsup import listing, methods, modalities
from selfsup.errors import SelfsupError
from selfsup.modalities.image import Image
from selfsup.plan import (
    MOST_EPOCHS,
    WANTED_EPOCHS,
    Facts,
    _for,
    patch_for,
    plan,
)
from selfsup.suited import BATCHES, CANDIDATES, LIKE, SHORT


def chosen(given=None, *, rate=lambda settings: 300.0, **facts):
    facts = {"samples": 50_000, "side": 32, "cores": 2} | facts
    side = facts.pop("side")
    facts["size"], facts["size_reason"] = Image().usual_size(side, facts.get("device", "cpu"))
    facts["larger"] = Image().larger_sizes(side, facts["size"])
    choices = plan(given or {}, Facts(**facts), rate, "simclr")
    assert all(choice.reason for choice in choices), choices
    return {choice.key: choice.value for choice in choices}


def by_size(speeds):
    """A machine that is `speeds[i]` samples/s fast on the i-th candidate, and remembers."""
    asked = []

    def rate(settings):
        own = {k.removeprefix("encoder."): v for k, v in settings.items() if "encoder." in k}
        own.pop("name")
        asked.append([c.keywords for c in CANDIDATES["simclr"]].index(own))
        return speeds[asked[-1]]

    rate.asked = asked
    return rate


def test_everything_is_chosen_with_a_reason():
    found = chosen()
    assert found["method.name"] == "simclr" and found["encoder.name"] == "resnet18"
    assert found["data.resolution"] == 32 and found["train.batch"] == 256
    assert sum(f"train.{unit}" in found for unit in ("minutes", "epochs", "steps")) == 1


def test_rates_are_for_the_optimizer_they_were_tried_with():
    assert chosen()["optim.name"] == "muon" and chosen({"optim.name": "muon"})["optim.lr"]
    assert not [key for key in chosen({"optim.name": "adamw"}) if key.startswith("optim.")]


def short(name):
    """The optimizer of a short run by this method."""
    own = getattr(methods, listing.methods()[name].class_name).optim
    found = {k.removeprefix("optim."): v for k, v in SHORT[name].items() if k.startswith("optim.")}
    return replace(own, **found)


def test_methods_with_prototypes_have_one_rate():
    dino, *others = [short(name) for name in ("dino", "ibot", "dinov2")]
    assert [(o.name, o.lr / o.per) for o in others] == [(dino.name, dino.lr / dino.per)] * 2


def test_no_decay_of_a_short_run_grows_to_that_of_a_long_one():
    chosen = [name for name in listing.methods() if "optim.weight_decay" in SHORT.get(name, {})]
    ends = {name: short(name) for name in chosen}
    assert "msn" in ends
    assert {n for n, o in ends.items() if o.weight_decay_end not in (None, o.weight_decay)} == set()


def test_shards_go_without_an_optimizer_that_needs_whole_matrices():
    assert chosen()["optim.name"] == "muon"
    found = chosen({"train.shard": True})
    assert not any(key.startswith("optim.") for key in found) and found["method.hidden"] == 512


def test_what_is_given_is_never_chosen():
    given = {"method.name": "mae", "encoder.name": "vit_tiny", "encoder.patch": 2}
    given |= {"train.batch": 64, "data.resolution": 24, "train.steps": 7}
    assert not set(chosen(given)) & {*given, "train.minutes", "train.epochs"}


def test_largest_encoder_that_sees_the_data_often_enough():
    need = WANTED_EPOCHS * 50_000 / 600  # samples/s that ten minutes ask for
    fast = by_size([need * 1.01, need * 2, need * 3, need * 4])
    assert "encoder.width" not in chosen({"train.minutes": 10.0}, rate=fast)
    assert fast.asked == [3, 2, 1, 0]
    middle = by_size([None, need * 0.5, need * 1.01, need * 2])
    found = chosen({"train.minutes": 10.0}, rate=middle)
    assert found["encoder.width"] == 0.5 and found["encoder.stem"] == 2
    assert middle.asked == [3, 2, 1], "what is larger still is not even tried"
    slow = by_size([None, None, None, 4.0])
    assert chosen({"train.minutes": 10.0}, rate=slow)["encoder.width"] == 0.25


@pytest.mark.parametrize(("hours", "side"), [(0.25, 64), (2, 96), (10, 160), (1000, 224)])
def test_long_runs_see_larger_views(hours, side):
    def rate(settings):  # work in proportion to the area
        return 400 * (64 / settings["data.resolution"]) ** 2

    found = chosen({"train.minutes": 60.0 * hours}, rate=rate, side=256, samples=200_000)
    assert found["data.resolution"] == side, "as large as shows the data often enough"
    given = chosen({"train.minutes": 6000.0, "data.resolution": 64}, rate=rate, side=256)
    assert "data.resolution" not in given


def test_a_fixed_length_measures_nothing():
    def rate(settings):
        raise AssertionError("nothing to measure for")

    assert chosen({"train.epochs": 3.0}, rate=rate)["encoder.name"] == "resnet18"
    assert chosen({"train.steps": 3, "encoder.name": "vit_tiny"}, rate=rate)


def test_small_data_end_after_enough_passes():
    found = chosen(samples=1000, rate=lambda settings: 1e4)
    assert found["train.epochs"] == MOST_EPOCHS and "train.minutes" not in found


@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_samples_are_no_input(samples):
    with pytest.raises(SelfsupError) as caught:
        chosen(samples=samples)
    assert caught.value.code == "E102" and caught.value.exit_code == 66
    assert caught.value.do


@pytest.mark.parametrize("samples", [2, 3, 5, 63, 64, 255, 256, 257, 1023, 1024, 1025])
@pytest.mark.parametrize("method", ["simclr", "dino", "mae"])
def test_the_batch_never_exceeds_the_data(samples, method):
    batch = chosen({"method.name": method}, samples=samples)["train.batch"]
    assert 2 <= batch <= samples


@pytest.mark.parametrize("side", [1, 8, 15, 28, 32, 33, 48, 64, 96, 128, 500, 4000])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_resolution_suits_encoders(side, device):
    found = chosen({"method.name": "mae"}, side=side, device=device)
    size = found["data.resolution"]
    assert 8 <= size <= max(8, side) and size <= 224
    assert size % found["encoder.patch"] == 0
    assert 16 <= (size // found["encoder.patch"]) ** 2 <= 400


@pytest.mark.parametrize("side", range(8, 257, 8))
def test_patches_tile_the_picture(side):
    assert side % patch_for(side) == 0


@pytest.mark.parametrize(("size", "patch"), [(64, 16), (40, None)])
def test_clips_get_patches_that_tile_them(size, patch):
    found = chosen({"method.name": "simclr", "data.resolution": size}, modality="video")
    assert found.get("encoder.patch") == patch and found["encoder.tubelet"] == 4


def test_masked_methods_get_transformers():
    assert chosen({"method.name": "mae"})["encoder.name"].startswith("vit")


def test_waves_get_encoders_of_waves():
    sound = {"modality": "audio", "samples": 2000}
    assert chosen(**sound)["encoder.name"].startswith("mel_")
    assert chosen({"modality.form": "wave"}, **sound)["encoder.name"].startswith("wave_")


def test_methods_without_lines_of_their_own_are_like_those_that_ask_for_the_same():
    tables = {*BATCHES, *LIKE}
    for method, listed in listing.methods().items():
        like = "mae" if "tokens" in listed.asks else "simclr"
        if not {key for key in tables if key.split(".")[-1] == method}:
            assert _for(method, "image", CANDIDATES) == CANDIDATES[like], method
            assert _for(method, "audio", BATCHES) == BATCHES.get(f"audio.{like}", BATCHES[like])
    assert chosen({"method.name": "igpt"})["encoder.causal"] is True  # it must not see what is next


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", listing.modalities())
def test_every_modality_gets_one_of_its_encoders(name, device):
    modality = modalities.find(name)
    for method in (modality.default_method, "simclr"):
        facts = Facts(5000, 64, modality=name, device=device, encoders=modality.encoders)
        choices = plan({"method.name": method}, facts, lambda settings: 300.0, method)
        (encoder,) = (c.value for c in choices if c.key == "encoder.name")
        assert encoder in modality.encoders
