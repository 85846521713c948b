import torch

from unimm.probes.correspond import match_points


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
