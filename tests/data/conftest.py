import pytest

from selfsup.modalities import find
from tests.data.pictures import encoded, write


@pytest.fixture
def image():
    return find("image")()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Stores of a test go to a folder of its own, never to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SELFSUP_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    """Twenty good pictures of one size in two sub-folders."""
    files = {f"{'ab'[i % 2]}/{i:02d}.png": encoded(i) for i in range(20)}
    return write(tmp_path / "photos", files)
