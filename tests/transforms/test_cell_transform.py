# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from monai_armed.transforms import LoadCelld


def save(file, pixels, mode=None):
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file)
    return {"image": str(file), "batch": "150312"}


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype, top", [(np.uint8, 255), (np.uint16, 65535)])
def test_grey_of_8_and_16_bits_keeps_its_values_and_orientation(tmp_path, suffix, dtype, top):
    pixels = np.random.default_rng(0).integers(0, top, (16, 16), endpoint=True, dtype=dtype)
    pixels[0] = top  # the uppermost row, which shows a transposed image
    item = LoadCelld("image", 16)(save(tmp_path / f"a.{suffix}", pixels))
    assert item["image"].dtype == torch.float32 and item["batch"] == "150312"
    torch.testing.assert_close(item["image"], torch.from_numpy(pixels.astype(np.float32) / top)[None])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_grey_in_another_storage_is_the_same_image(tmp_path, grey, mode):
    loaded = LoadCelld("image", 32)(save(tmp_path / "a.png", grey, mode))["image"]
    torch.testing.assert_close(loaded, torch.from_numpy(grey.astype(np.float32) / 255)[None])


def test_float_and_one_bit_images(tmp_path, grey):
    unit = grey.astype(np.float32) / 255
    unit[0, :2] = 0, 1
    loaded = LoadCelld("image", 32)(save(tmp_path / "a.tif", unit))["image"]
    torch.testing.assert_close(loaded, torch.from_numpy(unit)[None])
    with pytest.raises(ValueError, match=r"a\.tif has values outside 0 to 1 \(0 to 2\); save it as 8 or 16 bits"):
        LoadCelld("image", 32)(save(tmp_path / "a.tif", unit * 2))
    unit[0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"a\.tif is NaN or infinite in 3 of 1024 pixels; give them a value"):
        LoadCelld("image", 32)(save(tmp_path / "a.tif", unit))
    bits = LoadCelld("image", 32)(save(tmp_path / "b.png", grey > 99))["image"]
    torch.testing.assert_close(bits, torch.from_numpy(grey > 99)[None].float())


@pytest.mark.parametrize("bits", [12, 14])
def test_a_cameras_12_or_14_bits_keep_the_scale_of_16_and_a_warning_says_so_once(tmp_path, bits):
    largest = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, largest, (16, 16), endpoint=True, dtype=np.uint16)
    pixels[0, 0] = largest
    load = LoadCelld("image", 16)
    items = [save(tmp_path / f"{i}.tif", pixels) for i in range(3)]
    with pytest.warns(UserWarning, match=r"without a value above 16383.* LoadCelld .*--load_image#max_value"):
        dark = load(items[0])["image"]
    torch.testing.assert_close(dark, torch.from_numpy(pixels.astype(np.float32) / 65535)[None])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # Python's own: each text once, so the same one for all files
        for item in items:
            load(item)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = LoadCelld("image", 16, max_value=largest)
        torch.testing.assert_close(right(items[0])["image"], dark * 65535 / largest)
        eight = save(tmp_path / "8_bits.tif", (pixels >> (bits - 8)).astype(np.uint8))
        assert right(eight)["image"].max() == 1  # the option is of files of more bits alone
    with pytest.raises(ValueError, match=rf"values outside 0 to {largest} .* give its largest value as max_value"):
        right(save(tmp_path / "more.tif", pixels + np.uint16(1)))


def tiff(file, pixels, **kwargs):
    """A TIFF as microscopes' programs write it, which Pillow cannot."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(file, pixels, **kwargs)
    return {"image": str(file)}


def test_signed_integers_are_divided_by_what_their_type_holds(tmp_path):
    load = LoadCelld("image", 16)
    for dtype in (np.int8, np.int16):
        top = np.iinfo(dtype).max
        pixels = np.random.default_rng(0).integers(0, top, (16, 16), endpoint=True, dtype=dtype)
        pixels[0, 0] = top
        loaded = load(tiff(tmp_path / "a.tif", pixels))["image"]
        torch.testing.assert_close(loaded, torch.from_numpy(pixels.astype(np.float32) / top)[None])
        with pytest.raises(ValueError, match=rf"b\.tif has values outside 0 to {top} \(-{top} to "):
            load(tiff(tmp_path / "b.tif", -pixels))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_zero_may_be_white(tmp_path, dtype):
    pixels = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    pixels = (pixels * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else pixels
    pixels = pixels > 0.5 if dtype is bool else pixels
    black, white = (
        LoadCelld("image", 16)(tiff(tmp_path / f"{zero}.tif", pixels, photometric=zero))["image"]
        for zero in ("minisblack", "miniswhite")
    )
    torch.testing.assert_close(white, 1 - black)


def test_integers_of_32_bits_need_their_largest_value(tmp_path):
    for dtype in (np.uint32, np.int32):
        pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (16, 16), endpoint=True, dtype=dtype)
        item = tiff(tmp_path / "a.tif", pixels)
        with pytest.raises(ValueError, match=r"a\.tif holds integers of 32 bits.* as max_value"):
            LoadCelld("image", 16)(item)
        loaded = LoadCelld("image", 16, max_value=np.iinfo(dtype).max)(item)["image"]
        torch.testing.assert_close(loaded[0].double().numpy(), pixels / np.iinfo(dtype).max, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("shape", "kwargs", "message"),
    [
        ((2, 16, 16), {"photometric": "minisblack"}, "holds 2 pages"),
        ((5, 16, 16), {"imagej": True, "truncate": True}, "holds 5 pages"),  # one page by its tags
        ((16, 16, 2), {"photometric": "minisblack", "planarconfig": "contig"}, "holds 2 channels"),
        ((2, 16, 16), {"photometric": "minisblack", "planarconfig": "separate"}, "cannot be read .* grey of 8 or 16"),
        ((16, 16, 5), {"photometric": "minisblack", "planarconfig": "contig"}, "cannot be read .* grey of 8 or 16"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stacks_and_several_channels_are_refused_by_name(tmp_path, shape, kwargs, message, dtype):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=dtype)
    if dtype is np.uint16 and "channels" in message:
        message = "cannot be read .* grey of 8 or 16"  # Pillow knows no such file
    with pytest.raises(ValueError, match=rf"stack\.tif {message}"):
        LoadCelld("image", 16)(tiff(tmp_path / "stack.tif", pixels, **kwargs))


def test_grey_in_16_bit_colour_is_refused_for_8_bits_would_be_lost(tmp_path):
    pixels = np.repeat(np.arange(256, dtype=np.uint16).reshape(16, 16, 1) * 100, 3, axis=-1)
    with pytest.raises(ValueError, match=r"a\.tif is RGB of 16 bits, of which 8 would be lost"):
        LoadCelld("image", 16)(tiff(tmp_path / "a.tif", pixels, photometric="rgb"))


def test_resizing_keeps_the_mean_and_does_not_alias(tmp_path):
    stripes = np.tile(np.array([[0, 255]], dtype=np.uint8), (64, 32))
    small = LoadCelld("image", 16)(save(tmp_path / "a.png", stripes))["image"]
    assert small.shape == (1, 16, 16)
    torch.testing.assert_close(small[..., 2:-2], torch.full((1, 16, 12), 0.5), atol=0.01, rtol=0)
    large = LoadCelld("image", 128)(save(tmp_path / "a.png", stripes))["image"]
    assert large.shape == (1, 128, 128) and 0 <= large.min() and large.max() <= 1


def test_a_non_square_image_is_cut_to_its_centre(tmp_path, grey):
    middle = torch.from_numpy(grey.astype(np.float32) / 255)[None]
    wide = np.pad(grey, ((0, 0), (5, 6)), constant_values=255)
    torch.testing.assert_close(LoadCelld("image", 32)(save(tmp_path / "a.png", wide))["image"], middle)
    tall = np.pad(grey, ((7, 7), (0, 0)), constant_values=255)
    torch.testing.assert_close(LoadCelld("image", 32)(save(tmp_path / "b.png", tall))["image"], middle)


def test_files_that_cannot_be_used_get_one_sentence(tmp_path, grey):
    load = LoadCelld("image", 32)
    with pytest.raises(FileNotFoundError, match=r"cell image .*none\.png does not exist"):
        load({"image": str(tmp_path / "none.png")})
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as PNG or TIFF \(UnidentifiedImageError: "):
        load({"image": str(tmp_path / "text.png")})
    save(tmp_path / "a.png", grey)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read as PNG or TIFF \(OSError: .*; replace it"):
        load({"image": str(tmp_path / "cut.png")})
    colour = np.stack([grey, grey, grey.T], -1)
    with pytest.raises(ValueError, match=r"c\.png is a colour image; convert it to grey first"):
        load(save(tmp_path / "c.png", colour))
    page = Image.fromarray(grey)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ValueError, match=r"pages\.tif holds 3 pages; save each frame as a file of its own"):
        load({"image": str(tmp_path / "pages.tif")})


def test_keys_and_size_are_checked(tmp_path, grey):
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        LoadCelld("image", 0)
    with pytest.raises(ValueError, match="max_value must be positive, got -1"):
        LoadCelld("image", 32, max_value=-1)
    item = save(tmp_path / "a.png", grey)
    with pytest.raises(KeyError):
        LoadCelld("other", 32)(item)
    assert LoadCelld("other", 32, allow_missing_keys=True)(item) == item


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_of_one_grey_is_refused(tmp_path, dtype):
    with pytest.raises(ValueError, match=r"a\.tif is constant \(every pixel is 99\); leave it out"):
        LoadCelld("image", 32)(save(tmp_path / "a.tif", np.full((32, 32), 99, dtype)))
