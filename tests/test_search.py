"""What cannot be read is told, in the query and in the data."""

import pytest
import small_encoder

import selfsup
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded, write


def test_samples_and_queries_that_cannot_be_read(tmp_path):
    small_encoder.export(tmp_path / "encoder")
    files = {f"{i}.png": encoded(i) for i in range(3)} | {"none.png": b"", "web.png": b"<html>"}
    photos = write(tmp_path / "photos", files)
    found = selfsup.search(tmp_path / "encoder", photos / "1.png", photos, top=2)
    assert found.hits[0].name == "1.png" and found.reasons == {"empty": 1, "not_an_image": 1}
    assert "found 5 = used 3 + skipped 2 (1 empty, 1 not_an_image; `selfsup" in str(found)
    with pytest.raises(SelfsupError) as caught:
        selfsup.search(tmp_path / "encoder", photos / "web.png", photos)
    assert caught.value.code == "E103" and "web page" in caught.value.why
