import torch

from unimm.data.labelled.sets import LabelledPictures
from unimm.probes.correspond import match_points
from unimm.probes.hyperfeatures import HyperfeaturesConfig, Mixer


def test_points_are_found_where_their_features_went():
    """The target is the source moved by two places, which are 16 pixels."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(3, 16, 8, 8, generator=generator)
    target = source.roll(2, dims=3)
    points = torch.tensor([[12.0, 20.0], [28.0, 44.0]]).expand(3, -1, -1)  # middles of places
    found = match_points(source, target, points, 64)
    assert torch.allclose(found, points + torch.tensor([16.0, 0.0]), atol=4.1)
    # Length does not matter, direction does.
    assert torch.equal(match_points(source, 5 * target, points, 64), found)


def test_a_mixer_learns_which_map_to_trust():
    """Of two layers one is noise; points must be told apart by the other."""
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(24, 6, 2, generator=generator) * 56 + 4).float()
    part = LabelledPictures(
        pixels=torch.zeros(24, 3, 64, 64, dtype=torch.uint8),
        keypoints=points,
        is_visible=torch.ones(24, 6, dtype=torch.bool),
        boxes=torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(24, -1),
        pairs=torch.arange(24).view(12, 2),
    )
    useful, noise = torch.zeros(24, 6, 16, 16), torch.randn(24, 6, 16, 16, generator=generator)
    for i in range(24):
        for k, (x, y) in enumerate((points[i] / 4).long().tolist()):
            useful[i, k, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 1
    maps = [[useful], [noise]]
    config = HyperfeaturesConfig(width=16)
    torch.manual_seed(0)
    mixer = Mixer([6, 6], 1, 16)
    optimizer = torch.optim.AdamW(mixer.parameters(), lr=3e-2)
    pairs = part.need("pairs")
    first = last = 0.0
    for step in range(40):
        cost = config._loss(mixer, maps, part, pairs, torch.device("cpu"))
        first, last = (float(cost), last) if step == 0 else (first, float(cost))
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    assert last < 0.5 * first
    shares = mixer.shares((0.1,))
    assert shares["layer 0"]["0.1"] > shares["layer 1"]["0.1"]
