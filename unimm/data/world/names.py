"""Names of characters. A name says nothing of a look; only its pronoun goes with it.

Half of the names come from a list, half are made of syllables. A trunk that meets only listed names
learns each of them by heart; one that meets new names all the time must learn to copy what an
earlier page says, and then it can tell of any name that a user types.
"""

import numpy as np

from unimm.data.world.splits import Split, stable_hash

SHE: tuple[str, ...] = (
    "Mia", "Lily", "Ella", "Zoe", "Nora", "Ruby", "Ivy", "Luna", "Rosa", "Anna", "Emma",
    "Clara", "Daisy", "Hazel", "Olive", "Poppy", "Stella", "Willow", "Bella", "Cora", "Dora",
    "Elsa", "Fay", "Gia", "Hana", "Ida", "Jade", "Kira", "Lola", "Maya", "Nina", "Opal", "Pia",
    "Quinn", "Rita", "Sara", "Tara", "Uma", "Vera", "Wanda", "Yara", "Zara", "Abby", "Betty",
    "Coco", "Dolly", "Edie", "Flora", "Greta", "Heidi", "Iris", "Juno", "Kiki", "Lulu", "Mimi",
    "Nala", "Orla", "Penny", "Rosie", "Suki", "Tilly", "Una", "Viola", "Winnie", "Yuki", "Alma",
    "Bonnie", "Carmen", "Dina", "Esme", "Freya", "Gwen", "Holly", "Ines", "June", "Kaya",
    "Leni", "Molly", "Nelly", "Olga", "Pearl", "Romy", "Sunny", "Thea", "Trixie", "Vivi",
    "Zelda", "Amelie", "Birdie", "Celia", "Delia", "Elin", "Fiona", "Gemma", "Honey", "Isla",
    "Josie", "Katie", "Lotte", "Maggie", "Naomi", "Paula", "Ronja", "Salma", "Tessa", "Wilma",
)  # fmt: skip
HE: tuple[str, ...] = (
    "Momo", "Tom", "Leo", "Max", "Ben", "Sam", "Finn", "Theo", "Hugo", "Otto", "Oscar", "Felix",
    "Milo", "Toby", "Jack", "Noah", "Liam", "Adam", "Alfie", "Arlo", "Axel", "Barney", "Basil",
    "Benny", "Bobo", "Bruno", "Carl", "Charlie", "Chester", "Coby", "Dan", "Dexter", "Digby",
    "Eddie", "Eli", "Emil", "Ernie", "Ezra", "Fido", "Frank", "Fred", "Gabe", "George", "Gus",
    "Hank", "Harry", "Henry", "Igor", "Ike", "Ivan", "Jasper", "Jim", "Joey", "Jonas", "Kai",
    "Karl", "Kenji", "Kit", "Koko", "Lars", "Lenny", "Louis", "Luca", "Marlo", "Marvin",
    "Mateo", "Ned", "Nico", "Niko", "Nils", "Oli", "Omar", "Oreo", "Ozzy", "Pablo", "Paco",
    "Pete", "Pip", "Pluto", "Ralph", "Ravi", "Remy", "Rico", "Rocky", "Rollo", "Rory", "Rufus",
    "Sid", "Simon", "Sven", "Tao", "Ted", "Tim", "Tito", "Ulf", "Vito", "Wally", "Walter",
    "Wes", "Willy", "Yoshi", "Zack", "Ziggy",
)  # fmt: skip

_KEPT = ("Mia", "Momo", "Tom", "Lily")  # the documentation's examples
_LISTED = frozenset(SHE + HE)
_SHE = frozenset(SHE)

_MADE_SHARE = 0.5
_ONSETS = (
    "b", "bl", "br", "c", "ch", "d", "dr", "f", "fl", "fr", "g", "gr", "h", "j", "k", "kl", "l",
    "m", "n", "p", "pl", "qu", "r", "s", "sh", "st", "t", "th", "tr", "v", "w", "y", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ee", "oo", "ai", "ia")
_CODAS = ("", "", "", "", "n", "r", "l", "s", "x", "m", "ck", "lf", "rt", "nk")


def is_heldout_name(name: str) -> bool:
    """Whether training never reads this name: a sixth of all names, listed or made."""
    return stable_hash("name", name) % 6 == 0 and name not in _KEPT


HELDOUT_NAMES: frozenset[str] = frozenset(filter(is_heldout_name, SHE + HE))

_HEARD = {
    False: tuple(name for name in SHE + HE if name not in HELDOUT_NAMES),
    True: tuple(name for name in SHE + HE if name in HELDOUT_NAMES),
}


def names_of(split: Split) -> tuple[str, ...]:
    """The listed names that a split may use."""
    return _HEARD[split == Split.HELDOUT]


def sample_name(rng: np.random.Generator, split: Split) -> str:
    """A listed or a made name; held-out stories have names that training never reads."""
    is_made = rng.random() < _MADE_SHARE
    while is_made:
        name = _make_name(rng)
        if is_heldout_name(name) == (split == Split.HELDOUT) and name not in _LISTED:
            return name
    listed = names_of(split)
    return listed[int(rng.random() * len(listed))]


def _make_name(rng: np.random.Generator) -> str:
    """Two syllables, sometimes three: Brano, Shiavel, Quiloom."""

    def one(of: tuple[str, ...]) -> str:
        return of[int(rng.random() * len(of))]

    num_syllables = 3 if rng.random() < 0.2 else 2
    syllables = "".join(one(_ONSETS) + one(_VOWELS) for _ in range(num_syllables))
    return (syllables + one(_CODAS)).capitalize()


def pronoun_of(name: str) -> str:
    """``she`` or ``he``; of a name that is not listed, its ending decides."""
    if name in _LISTED:
        return "she" if name in _SHE else "he"
    return "she" if name.endswith(("a", "e", "i")) else "he"
