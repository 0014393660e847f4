import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from selfsup.data import open_source, open_store
from selfsup.data.outcome import BadSample
from selfsup.data.trajectories import STRETCH
from selfsup.errors import SelfsupError
from selfsup.export import vectors
from selfsup.load import Card, LoadedEncoder
from selfsup.method import Views
from selfsup.modalities import find, of_content
from selfsup.randomness import Draws
from selfsup.scan import scan


def episode(steps=40, seed=0, pictures=False, extra=0):
    """Each action is added to what is seen next."""
    random = np.random.Generator(np.random.Philox(seed))
    action = random.normal(size=(steps - extra, 2)).astype(np.float32)
    if pictures:
        seen = random.integers(0, 256, (steps, 8, 8, 3)).astype(np.uint8)
    else:
        moved = np.concatenate([np.zeros((1, 2)), action.cumsum(0)])[:steps]
        seen = np.concatenate([moved, np.full((steps, 1), 7.0)], 1).astype(np.float32)
    return {"observation": seen, "action": action}


def folder_of(path, episodes):
    path.mkdir(exist_ok=True)
    for i, arrays in enumerate(episodes):
        np.savez(path / f"{i}.npz", reward=np.zeros(3), **arrays)
    return path


def learned(source):
    modality = find("trajectory")()
    modality.learn(source)
    return modality


def windows(source, size=6, spec=None):
    modality = learned(source)
    with open_store(source, modality, size) as store:
        batch = store.batch(np.arange(len(store)))
    draws = Draws(0, batch.samples)
    return modality, batch, modality.views(batch, spec or Views(light=1), draws, size)


# ---- what is read -----------------------------------------------------------------------------


def test_folder_of_episodes_is_recognised_and_cut_into_stretches(tmp_path):
    source = open_source(folder_of(tmp_path / "a", [episode(70), episode(40), episode(20)]))
    assert source.content == "trajectories" and of_content(source.content) == "trajectory"
    lengths = [len(source.read(i)["action"]) for i in range(len(source))]
    assert lengths == [STRETCH, 38, 40, 20]  # an end that is short goes with what is before it
    assert source.name(1) == f"0.npz@{STRETCH}"
    whole = np.concatenate([source.read(0)["observation"], source.read(1)["observation"]])
    assert (whole == episode(70)["observation"]).all()


def test_a_list_of_episodes_is_what_their_files_are(tmp_path):
    episodes = [episode(70), episode(40, seed=1), episode(20, seed=2)]
    listed, stored = open_source(episodes), open_source(folder_of(tmp_path / "a", episodes))
    assert len(listed) == len(stored) and listed.content == "trajectories"
    for i in range(len(stored)):
        for name, values in stored.read(i).items():
            assert np.array_equal(listed.read(i)[name], values)
    assert listed.fingerprint() != open_source(episodes[::-1]).fingerprint()


def test_folders_of_several_sizes_are_named_and_one_odd_episode_is_not(tmp_path):
    folder_of(tmp_path / "walker", [episode(40), episode(40)])
    wide = episode(40)
    wide["observation"] = np.concatenate([wide["observation"]] * 2, 1)
    folder_of(tmp_path / "ant", [wide, wide])
    with pytest.raises(SelfsupError, match=r"ant \(6 seen, 2 done\), walker \(3 seen, 2 done\)"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "ant")) == 2
    (tmp_path / "ant" / "1.npz").unlink()
    source = open_source(tmp_path)  # what is left of it is a fault among the others
    assert len(source) == 3 and source.labels()[1] == ["ant", "walker"]


def test_parts_of_episodes_are_no_classes(tmp_path):
    for part in ("train", "test"):
        folder_of(tmp_path / part, [episode(40)])
    source = open_source(tmp_path)
    assert source.splits()[1] == ["test", "train"] and source.labels() is None


def test_one_file_other_names_and_a_last_observation_without_action(tmp_path):
    arrays = episode(20, extra=1)
    np.savez(tmp_path / "one.npz", obs=arrays["observation"], act=arrays["action"])
    (sample,) = [open_source(tmp_path / "one.npz").read(0)]
    assert len(sample["observation"]) == len(sample["action"]) == 20
    assert (sample["action"][-1] == 0).all()


def test_an_npz_of_something_else_stays_what_it_was(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 8, 8, 3), np.uint8), labels=np.arange(5))
    assert open_source(tmp_path / "x.npz").content == "image"


@pytest.mark.parametrize("form", ["lists", "columns"])
def test_parquet_with_a_column_of_episodes(form, tmp_path):
    first, second = episode(24, 1), episode(20, 2)
    both = {k: np.concatenate([first[k], second[k]]) for k in first}
    columns = {"episode_index": [0] * 24 + [1] * 20, "frame_index": [*range(24), *range(20)]}
    if form == "lists":
        columns |= {"observation": list(both["observation"]), "action": list(both["action"])}
    else:
        for name, values in (("observation", both["observation"]), ("action", both["action"])):
            columns |= {f"{name}_{i}": column for i, column in enumerate(values.T)}
    table = pa.table(columns).take(np.random.Generator(np.random.Philox(0)).permutation(44))
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert source.content == "trajectories" and len(source) == 2
    np.testing.assert_array_equal(source.read(1)["observation"], second["observation"])
    np.testing.assert_array_equal(source.read(1)["action"], second["action"])


def test_folders_of_frames_with_actions(tmp_path):
    arrays = episode(18, pictures=True)
    folder = tmp_path / "data" / "first"
    folder.mkdir(parents=True)
    for t, frame in enumerate(arrays["observation"]):
        Image.fromarray(frame).save(folder / f"{t:03d}.png")
    lines = ["x,y"] + [f"{u},{v}" for u, v in arrays["action"].tolist()]
    (folder / "actions.csv").write_text("\n".join(lines))
    source = open_source(tmp_path / "data")
    assert source.content == "trajectories" and len(source) == 1
    assert (source.read(0)["observation"] == arrays["observation"]).all()
    np.testing.assert_allclose(source.read(0)["action"], arrays["action"], rtol=1e-6)


# ---- faults -----------------------------------------------------------------------------------

FAULTS = {
    "lengths": lambda a: a | {"action": a["action"][:-5]},
    "no_actions": lambda a: {"observation": a["observation"]},
    "no_observations": lambda a: {"action": a["action"]},
    "not_finite": lambda a: a | {"observation": np.where(np.eye(20, 3) > 0, np.nan, 1.0)},
    "shape": lambda a: a | {"observation": a["observation"][:, :2]},
    "too_short": lambda a: {name: values[:1] for name, values in a.items()},
    "not_a_trajectory": lambda a: a | {"action": a["action"].astype("U8")},
}


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_has_its_reason_and_ends_nothing(code, tmp_path):
    folder = folder_of(tmp_path / "a", [episode(20, i) for i in range(4)])
    np.savez(folder / "9bad.npz", reward=np.zeros(20), **FAULTS[code](episode(20)))
    found = scan(folder)
    assert (found.used, found.reasons) == (4, {code: 1})
    (bad,) = found.bad
    assert bad["name"].startswith("9bad.npz") and len(bad["reason"]) > 8


def test_broken_and_changed_files(tmp_path):
    folder = folder_of(tmp_path / "a", [episode(20, i) for i in range(3)])
    (folder / "1.npz").write_bytes((folder / "1.npz").read_bytes()[:200])
    (folder / "3.npz").write_bytes(b"")
    source = open_source(folder)
    assert scan(source).reasons == {"unreadable_array": 2}
    source = open_source(folder)
    np.savez(folder / "2.npz", reward=1, **episode(30))
    with pytest.raises(BadSample, match="changed"):
        source.read(2)


def test_pickled_arrays_are_never_opened(tmp_path):
    folder = folder_of(tmp_path / "a", [episode(20)])
    np.savez(folder / "1.npz", observation=np.array([{}] * 3, object), action=np.zeros((3, 1)))
    assert scan(folder).reasons == {"unreadable_array": 1}


# ---- views ------------------------------------------------------------------------------------


def test_views_are_windows_scaled_by_what_was_learned(tmp_path):
    source = open_source(folder_of(tmp_path / "a", [episode(20, i) for i in range(30)]))
    modality, batch, (view,) = windows(source)
    assert view.observations.shape == (30, 6, 3) and view.actions.shape == (30, 6, 2)
    assert view.valid.all()
    spread = torch.tensor(modality.scales["observation"][1])
    assert spread[2] == 1.0  # what never changes is not blown up
    step = view.observations[:, 1:, :2] - view.observations[:, :-1, :2]
    done = torch.from_numpy(modality.undone(view.actions))[:, :-1] / spread[:2]
    torch.testing.assert_close(step, done.float(), atol=1e-4, rtol=1e-4)  # actions lead there
    starts = {float(row) for row in view.observations[:, 0, 0]}
    assert len(starts) > 15  # windows begin anywhere
    (again,) = windows(source)[2]
    assert (again.observations == view.observations).all()
    plain = modality.plain(batch, 6)
    assert abs(float(plain.actions.mean())) < 0.1 and abs(float(plain.actions.std()) - 1) < 0.1


def test_short_samples_are_marked_and_pictures_are_channels_first(tmp_path):
    episodes = [episode(4, 1, pictures=True), episode(20, 2, pictures=True)]
    source = open_source(folder_of(tmp_path / "a", episodes))
    spec = Views(light=1, strong=1, local=1)
    modality, _, (light, strong, local) = windows(source, 6, spec)
    assert light.observations.shape == (2, 6, 3, 8, 8) and local.observations.shape[1] == 3
    assert light.valid.sum(1).tolist() == [4, 6]
    assert (light.observations != strong.observations).any()
    seen = light.observations[0, :4]
    level, spread = (torch.tensor(v)[:, None, None] for v in modality.scales["observation"])
    back = (seen * spread + level) * 255
    expected = torch.from_numpy(episodes[0]["observation"]).movedim(-1, 1).float()
    torch.testing.assert_close(back, expected, atol=1e-2, rtol=0)
    assert modality.picture(light).shape == (2, 3, 8, 54)
    both = torch.cat([light, local])
    assert len(both) == 4 and both.valid.sum(1).tolist() == [4, 6, 3, 3]


def test_state_goes_through_json_and_bad_ones_are_refused(tmp_path):
    source = open_source(folder_of(tmp_path / "a", [episode(20, i) for i in range(3)]))
    modality = learned(source)
    state = json.loads(json.dumps(modality.state))
    other = find("trajectory")()
    other.restore(state)
    assert other.state == modality.state and other.actions == 2
    for change in (
        {"shape": [10**9]},
        {"observation": [[0.0], [1.0]]},
        {"action": [[0.0, 0.0], [1.0, -1.0]]},
        {"range": [[0.0], [1.0]]},
    ):
        with pytest.raises(ValueError):
            find("trajectory")().restore(state | change)


def test_examples_go_through_everything(tmp_path):
    source = open_source(folder_of(tmp_path / "a", [episode(20, pictures=True)]))
    modality = learned(source)
    encoder = modality.encoder("observer_small", 6)
    for raw in modality.examples():
        assert modality.read(raw).dtype == np.uint8
        assert modality.thumbnail(modality.read(raw)).shape[2] == 3
    _, batch, _ = windows(source)
    assert encoder(modality.plain(batch, 6)).shape == (1, encoder.dim)
    assert modality.baseline(batch).shape == (1, 3 * 8 * 8)
    card = Card("trajectory", "observer_small", 6, {}, (), (), state=modality.state)
    assert vectors(LoadedEncoder(encoder, card, modality)).shape == (6, encoder.dim)
