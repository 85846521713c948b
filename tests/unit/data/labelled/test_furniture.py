import io

import numpy as np
import pytest
import torch
from labelled_folders import write_furniture
from PIL import Image

from unimm.data.labelled.furniture import FurnitureConfig, draw_view, read_catalogues
from unimm.data.labelled.obj_mesh import read_obj

CPU = torch.device("cpu")


def nothing(name: str) -> bytes:
    raise KeyError(name)


def test_faces_become_coloured_triangles():
    """Fans, numbers from the end, and a texture's colour in the middle of the face."""
    texture = Image.new("RGB", (2, 2), (0, 255, 0))
    texture.putpixel((0, 1), (0, 0, 255))
    texture.save(buffer := io.BytesIO(), "PNG")
    files = {
        "m.mtl": b"newmtl red\nKd 1 0 0\nnewmtl wood\nKd 1 1 1\nmap_Kd -s 1 1 1 t.png\n",
        "t.png": buffer.getvalue(),
    }
    content = b"""mtllib m.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
vt 0.5 0
vt 0.5 0.5
usemtl red
f 1 2 3 4
usemtl wood
f -4/1 -3/2 -2/3
usemtl unknown
f 1//1 2//1 3//1
"""
    mesh = read_obj(content, files.__getitem__)
    assert mesh.corners.shape == (4, 3, 3)
    assert mesh.corners[1].tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.colours[:2].tolist() == [[1, 0, 0]] * 2
    assert mesh.colours[2].tolist() == [0, 0, 1]  # lower left of the texture
    assert mesh.colours[3].tolist() == pytest.approx([0.7] * 3)
    grey = read_obj(content, nothing)
    assert np.allclose(grey.colours, 0.7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"v 0 0\n", "line 1, 'v 0 0': 3 numbers are needed"),
        (b"v 0 0 0\nf 1 2 3\n", "line 2, 'f 1 2 3': 2 is out of range: there are 1"),
        (b"v 0 0 nan\n", "numbers are needed"),
        (b"v 0 0 0\n", "no face"),
    ],
)
def test_malformed_models_are_named(content, message):
    with pytest.raises(ValueError, match=message):
        read_obj(content, nothing)


def test_sets_are_parted_by_model(tmp_path, caplog):
    """Every box has a colour of its own, so pixels say which model they show."""
    folder = write_furniture(tmp_path)
    config = FurnitureConfig(
        folder=str(folder), image_size=32, num_train=12, num_validation=3, num_test=4
    )
    data = config.read(CPU)
    assert "broken.obj" in caplog.text and "1 of" in caplog.text
    assert data.classes == ("Bedroom", "Kitchen")
    seen: list[set[int]] = []
    for part in (data.train, data.validation, data.test):
        depth, known = part.need("depth"), part.need("has_depth")
        classes = part.need("class_map")
        assert ((classes > 0).flatten(1).sum(1) > 20).all()
        for i, label in enumerate(part.need("labels").tolist()):
            assert set(classes[i].unique().tolist()) == {0, label + 1}
        assert float(depth[known].min()) > 1 and (depth[~known] == 10).all()
        # Boxes are red by half, and blue by their number.
        red, _, blue = part.pixels.float().permute(1, 0, 2, 3)
        ratio = torch.where(classes > 0, blue / red.clamp(min=1), torch.nan).flatten(1)
        seen.append({round(5 * float(x)) for x in ratio.nanmedian(1).values})
    assert len(set.union(*seen)) == sum(map(len, seen)) and len(data.test) == 4
    again = config.read(CPU)
    assert torch.equal(again.train.pixels, data.train.pixels)
    # Views of one model differ.
    assert len({x.numpy().tobytes() for x in data.train.need("depth")}) == len(data.train)


def test_a_model_stands_upright_and_its_depth_is_its_distance(tmp_path):
    """A pillar that lies in its file; the catalogue says how to turn it."""
    pillar = next(x for x in read_catalogues(write_furniture(tmp_path)) if "pillar" in x.path.name)
    mesh = pillar.load()
    width, height, depth = mesh.corners.max((0, 1)) - mesh.corners.min((0, 1))
    assert height > 4 * width and height > 4 * depth
    assert np.linalg.norm(mesh.corners, axis=-1).max() == pytest.approx(1)
    view = draw_view(
        torch.from_numpy(mesh.corners),
        torch.from_numpy(mesh.colours),
        np.random.default_rng(3),
        48,
    )
    rows, columns = view.is_model.any(1), view.is_model.any(0)
    assert int(rows.sum()) > 2 * int(columns.sum())
    assert 2.4 - 1 < float(view.depth[view.is_model].min()) < 4
    assert (view.depth[view.is_model] < 4.0 + 1).all()


def test_folders_without_libraries_say_so(tmp_path):
    with pytest.raises(ValueError, match="holds no library"):
        FurnitureConfig(folder=str(tmp_path)).read(CPU)
    (tmp_path / "a.sh3f").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="none of 1 files"):
        FurnitureConfig(folder=str(tmp_path)).read(CPU)
