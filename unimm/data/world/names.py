"""Names of characters. A name says nothing of a look; only its pronoun goes with it."""

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
HELDOUT_NAMES: frozenset[str] = frozenset(
    name for name in SHE + HE if stable_hash("name", name) % 6 == 0 and name not in _KEPT
)

_HEARD = {
    False: tuple(name for name in SHE + HE if name not in HELDOUT_NAMES),
    True: tuple(name for name in SHE + HE if name in HELDOUT_NAMES),
}
_SHE = frozenset(SHE)


def names_of(split: Split) -> tuple[str, ...]:
    """The names a split may use; held-out stories have names that training never reads."""
    return _HEARD[split == Split.HELDOUT]


def pronoun_of(name: str) -> str:
    """``she`` or ``he``."""
    return "she" if name in _SHE else "he"
