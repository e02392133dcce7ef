"""Folders of images as real machines have them: hidden files, links, odd names, odd formats, damaged files."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from privileges import ordinary_rights

from pfa_cli.data.imagefolder import ImageFolderDataset
from pfa_cli.data.photographs import Undecodable, decode, find_photographs
from pfa_cli.errors import PfaError
from pfa_cli.recipes import load_recipe

RED = Image.new("RGB", (40, 30), (255, 0, 0))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three images in each split."""
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                RED.save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def names(folder: Path) -> list[str]:
    photographs, _, _ = find_photographs(folder)
    return [str(photographs.path(i).relative_to(folder)) for i in range(len(photographs))]


def dataset(root: Path, share: float = 50.0) -> ImageFolderDataset:
    settings = {"image_size": 8, "corrupt_share_percent": share}
    configuration = load_recipe("imagenet").configuration("bp", settings)
    return ImageFolderDataset(configuration, root, torch.device("cpu"), workers=0)


def test_hidden_names_are_no_classes_and_no_images(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = names(root / "train")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    RED.save(root / "train" / ".ipynb_checkpoints" / "copy.png")
    (root / "train" / "a" / "._0.png").write_bytes(b"\0\5\x16\7macOS")
    (root / "train" / "a" / ".thumbnails").mkdir()
    RED.save(root / "train" / "a" / ".thumbnails" / "0.png")
    assert names(root / "train") == before
    data = dataset(root, share=0.0)
    assert data.n_classes == 2 and data.train_size == 6
    assert caplog.messages == [f"skipped in {root}/train: 3 hidden (for example .ipynb_checkpoints)"]


def test_links_to_a_folder_that_contains_them_are_skipped_and_other_links_followed(root: Path) -> None:
    before = names(root / "train")
    for link, target in {"a/up": "..", "a/itself": "../a", "c": "..", "b/x": "y", "b/y": "x"}.items():
        (root / "train" / link).symlink_to(target)
    (root / "elsewhere").mkdir()
    RED.save(root / "elsewhere" / "9.png")
    (root / "train" / "b" / "linked").symlink_to(root / "elsewhere")
    assert names(root / "train") == [*before, "b/linked/9.png"]
    _, classes, skipped = find_photographs(root / "train")
    assert classes == ["a", "b"]
    assert skipped == f"skipped in {root}/train: 5 linked in a circle (for example a/itself)"


def test_what_is_no_image_file_is_skipped_and_said(root: Path) -> None:
    before = names(root / "val")
    os.mkfifo(root / "val" / "a" / "fifo.png")
    (root / "val" / "a" / "notes.txt").touch()
    (root / "val" / "README").touch()
    assert names(root / "val") == before
    _, _, skipped = find_photographs(root / "val")
    assert "1 not a regular file (for example a/fifo.png)" in skipped
    assert "1 of another ending (for example a/notes.txt)" in skipped


def test_file_names_that_are_not_utf_8_are_found_and_shown_with_their_bytes(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (b"caf\xe9.png", b"damaged\xff.png"):
        path = root / "train" / "a" / os.fsdecode(name)
        RED.save(path) if name.startswith(b"caf") else path.write_bytes(b"")
    data = dataset(root)
    list(data.train_batches(0, 1, 8))
    assert len(data.unreadable) == 1 and r"a/damaged\xff.png" in caplog.messages[-1]
    with pytest.raises(PfaError, match=r"unreadable train images: .*damaged\\xff.png") as error:
        list(dataset(root, share=0.0).train_batches(0, 1, 8))
    str(error.value).encode()  # as it goes to the database


def test_a_data_folder_whose_name_is_not_utf_8_is_described_with_its_bytes(root: Path) -> None:
    moved = root.rename(root.with_name(os.fsdecode(b"photo\xe9")))
    assert dataset(moved).description == r"photo\xe9 (2 classes), 6 train / 6 test"
    with pytest.raises(PfaError, match=r"photo\\xe9/train/a: there are no class folders"):
        find_photographs(moved / "train" / "a")


@pytest.mark.parametrize("place", ["train", "train/a"])
def test_a_folder_that_must_not_be_read_is_an_error_and_not_left_out(root: Path, place: str) -> None:
    (root / place).chmod(0)
    message = f"cannot read .*{place}: Permission denied.*--data-dir or PFA_DATA"
    with ordinary_rights(), pytest.raises(PfaError, match=message):
        find_photographs(root / "train")
    (root / place).chmod(0o755)


def sixteen_bits(mode: str) -> Image.Image:
    """A ramp from black to white, 64 pixels wide."""
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)[None].repeat(64, 0)
    return Image.fromarray(ramp if mode == "I;16" else ramp.astype(mode))


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"ramp{ending}"
    if ending == ".pgm":
        pixels = np.asarray(sixteen_bits("I;16")).astype(">u2").tobytes()
        path.write_bytes(b"P5 64 64 65535\n" + pixels)
    else:
        sixteen_bits("I;16").save(path)
    pixels = np.asarray(decode(path))
    assert pixels.shape == (64, 64, 3)
    expected = np.linspace(0, 255, 64)
    assert np.abs(pixels - expected[None, :, None]).max() <= 0.51
    assert (pixels[0, 0] == 0).all() and (pixels[0, -1] == 255).all()


@pytest.mark.parametrize("mode", ["int32", "float32"])
def test_pixels_whose_white_is_not_known_are_refused(tmp_path: Path, mode: str) -> None:
    sixteen_bits(mode).save(tmp_path / "wide.tif")
    with pytest.raises(Undecodable, match=r"pixels of mode [IF], whose white is not known"):
        decode(tmp_path / "wide.tif")


def test_a_palette_with_transparency_is_decoded_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "clear.png", transparency=b"\xff\x80")
    assert (np.asarray(decode(tmp_path / "clear.png")) == [10, 20, 30]).all()


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    (RED.convert("P") if kind == "BLP" else RED).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["AVIF", "BLP", "DDS", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_a_truncated_file_of_any_format_is_undecodable(tmp_path: Path, kind: str) -> None:
    if kind == "AVIF":
        pytest.importorskip("PIL._avif")
    whole, path = encoded(kind), tmp_path / "image.JPEG"
    path.write_bytes(whole)
    assert decode(path).size == RED.size
    for length in (0, 1, 10, len(whole) // 4, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(Undecodable):
            decode(path)


class _Odd(Exception):
    pass


@pytest.mark.parametrize("error", [struct.error("short"), IndexError(), RecursionError("deep"), _Odd("odd")])
def test_whatever_a_decoder_raises_names_the_file_and_another_image_takes_its_place(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    damaged = root / "train" / "a" / "1.png"
    really = Image.open

    def fail(path: Path) -> Image.Image:
        if path == damaged:
            raise error
        return really(path)

    monkeypatch.setattr(Image, "open", fail)
    data = dataset(root)
    (batch,) = data.train_batches(0, 1, 6)
    assert len(batch[0]) == 6 and list(data.unreadable) == [str(damaged)]
    assert str(damaged) in caplog.text and (str(error) or "IndexError") in caplog.text


@pytest.mark.parametrize("kind", ["bomb", "narrow", "fifo", "folder", "circle", "nowhere"])
def test_a_file_that_would_fill_the_memory_or_never_end_is_undecodable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "image.png"
    match kind:
        case "bomb":
            RED.save(path)
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        case "narrow":
            Image.new("RGB", (1, 5000)).save(path)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "circle" | "nowhere":
            path.symlink_to("image.png" if kind == "circle" else "missing.png")
    with pytest.raises(Undecodable):
        decode(path)
