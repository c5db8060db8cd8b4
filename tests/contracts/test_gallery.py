"""The pictures of docs/gallery.md are there, each once and small."""

from __future__ import annotations

from PIL import Image
from tests.support.gallery import PAGE, PICTURES, pictures_of


def test_every_picture_is_there_and_small() -> None:
    """A clone has them all, so none has more than 120 kB, and all together at most 700 kB."""
    names = pictures_of(PAGE.read_text())
    files = {path.stem: path for path in PICTURES.iterdir()}
    assert sorted(names) == sorted(files)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert {name: size for name, size in sizes.items() if size > 120_000} == {}
    assert sum(sizes.values()) <= 700_000
    for path in files.values():
        with Image.open(path) as picture:
            assert picture.format == "WEBP"
            assert min(picture.size) >= 300
