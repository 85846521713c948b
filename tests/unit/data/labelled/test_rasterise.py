import math

import pytest
import torch

from unimm.data.labelled.rasterise import Camera, rasterise

CAMERA = Camera(azimuth=0.7, elevation=0.4, distance=3.0)


def quad(height: float, size: float) -> torch.Tensor:
    """Two horizontal triangles, one seen from above and one from below."""
    a, b, c, d = (
        torch.tensor([x * size, height, z * size])
        for x, z in ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
    )
    return torch.stack([torch.stack([a, b, c]), torch.stack([a, c, d]).flip(0)])


def test_depth_is_that_of_the_ray_through_each_pixels_middle():
    """A drawn floor has the depth of the plane, which is found in another way, and no seam."""
    found = rasterise(CAMERA.project(quad(-0.2, 0.9), 64), 64)
    plane = CAMERA.depth_of_plane(-0.2, 64, torch.device("cpu"))
    hit = found.triangles >= 0
    assert torch.allclose(found.depth[hit], plane[hit], rtol=1e-5)
    assert found.depth[~hit].isinf().all() and set(found.triangles[hit].tolist()) == {0, 1}
    rows = hit[hit.any(1)].int()
    assert (rows.diff(dim=1).abs().sum(1) <= 2).all()  # one run a row
    # By hand: where the ray of pixel (40, 20) meets the plane.
    right, up, forward = CAMERA.axes
    focal = 32 / math.tan(CAMERA.field_of_view / 2)
    ray = forward + (20.5 - 32) / focal * right - (40.5 - 32) / focal * up
    depth = (-0.2 - CAMERA.position[1]) / ray[1]
    assert float(plane[40, 20]) == pytest.approx(float(depth), rel=1e-5)


def test_what_is_nearer_hides_the_rest_whatever_the_order():
    both = torch.cat([quad(-0.5, 0.8), quad(0.1, 0.3)])
    found = rasterise(CAMERA.project(both, 48), 48)
    turned = rasterise(CAMERA.project(both.flip(0), 48), 48)
    assert torch.equal(found.depth, turned.depth)
    upper = found.triangles >= 2
    alone = rasterise(CAMERA.project(both[2:], 48), 48)
    assert torch.equal(upper, alone.triangles >= 0) and upper.any()
    assert ((found.triangles >= 0) & ~upper).any()


def test_triangles_beside_the_picture_and_without_area_are_nothing():
    beside = torch.tensor([[[-9.0, 2, 1], [-5, 2, 1], [-5, 9, 1]]])
    flat = torch.tensor([[[1.0, 1, 1], [4, 4, 1], [7, 7, 1]]])
    over = torch.tensor([[[-50.0, -50, 2], [100, -50, 2], [-50, 100, 2]]])
    found = rasterise(torch.cat([beside, flat]), 8)
    assert (found.triangles == -1).all() and found.depth.isinf().all()
    whole = rasterise(torch.cat([beside, flat, over]), 8)
    assert (whole.triangles == 2).all() and torch.allclose(whole.depth, torch.tensor(2.0))
    assert rasterise(torch.zeros(0, 3, 3), 8).depth.isinf().all()


def test_chunks_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 3, 3, generator=generator) * torch.tensor([32.0, 32, 4]) + 0.1
    whole = rasterise(corners, 32)
    monkeypatch.setattr("unimm.data.labelled.rasterise._FRAGMENTS", 100)
    pieces = rasterise(corners, 32)
    assert torch.equal(whole.depth, pieces.depth)
    assert torch.equal(whole.triangles, pieces.triangles)
