from collections import Counter

import pytest

from unimm.data.world.figures import sample_character
from unimm.data.world.scene import sample_rng
from unimm.data.world.splits import Split
from unimm.evaluation.chance import chance_of_agreement, look_distribution


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.HELDOUT])
def test_enumeration_agrees_with_the_sampler(split: Split) -> None:
    looks = look_distribution(split)
    assert sum(looks.values()) == pytest.approx(1.0)
    rng = sample_rng(11, int(split), 0)
    drawn = [sample_character(rng, split) for _ in range(6000)]
    seen = Counter((x.kind, x.tint, x.headwear) for x in drawn)
    assert set(seen) <= set(looks)
    for place in range(3):
        for word in {look[place] for look in looks}:
            expected = sum(share for look, share in looks.items() if look[place] == word)
            share = sum(n for look, n in seen.items() if look[place] == word) / len(drawn)
            assert abs(share - expected) < 0.025, (word, share, expected)


def test_chance_of_agreement_is_what_two_draws_do() -> None:
    chance = chance_of_agreement(Split.VALIDATION)
    assert 1 / 16 <= chance["species"] < 0.07
    assert chance["all"] < chance["species"] < chance["tint"] < chance["headwear"]
