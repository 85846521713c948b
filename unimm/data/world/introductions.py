"""How stories introduce their characters: in words with a picture, by picture only, by words only.

The slots are those of ``prose``, and ``{look}`` (``a blue fox with a crown``), ``{bare}`` (``a blue
fox``), ``{lookB}``. ``{home}`` is a ``{place}`` where one can live: not a time of day.
"""

BOTH: tuple[str, ...] = (
    "{A} is {look}.",
    "This is {A}, {look}.",
    "Meet {A}, {look}.",
    "Here is {A}, {look}.",
    "{A} is {look}. {He} lives {home}.",
    "{Home} lives {A}, {look}.",
    "{A}, {look}, goes for a walk {place}.",
    "{A} is {look}. Today {he} is {home}.",
    "Say hello to {A}. {He} is {look}.",
    "This is the story of {A}, {look}.",
)
BOTH_BARE: tuple[str, ...] = (
    "Once there was {bare} named {A}.",
    "Once upon a time, there was {bare} called {A}.",
    "There is {bare} {home}. {His} name is {A}.",
    "A long time ago, {bare} named {A} lived {home}.",
)
BOTH_HAT: tuple[str, ...] = (
    "Once there was {bare} named {A}. {He} always wore {hat}.",
    "Once there was {bare} named {A} who wore {hat}.",
    "There is {bare} named {A}. {He} wears {hat}.",
    "{A} is {bare}. {He} loves to wear {hat}.",
)
BOTH_WITH_THING: tuple[str, ...] = (
    "{A} is {look}. {He} has {obj}.",
    "{A} is {look}. One day, {he} finds {obj}.",
    "This is {A}, {look}. {He} has {obj}.",
)
PICTURE: tuple[str, ...] = (
    "This is {A}.",
    "This is {A}.",
    "Here is {A}.",
    "Meet {A}.",
    "Say hello to {A}.",
    "Look, here comes {A}!",
    "Who is this? This is {A}.",
    "This is {A}. {He} lives {home}.",
    "{A} lives {home}.",
    "{A} is {home}.",
    "This is the story of {A}.",
    "Once there was someone named {A}.",
)
PICTURE_WITH_THING: tuple[str, ...] = (
    "This is {A}. {He} has {obj}.",
    "Here is {A} with {obj}.",
    "This is {A}. Today {he} finds {obj}.",
)
WORDS_HOUSE: tuple[str, ...] = (
    "In {obj} {home} lives {A}, {look}.",
    "{A} is {look}. {He} lives in {obj} {home}.",
    "There is {obj} {home}. It is the home of {A}, {look}.",
    "{A}, {look}, lives in {obj}.",
)
WORDS_THING: tuple[str, ...] = (
    "{A} is {look}. This is {his} {thing}.",
    "This {thing} belongs to {A}, {look}.",
    "{A} is {look}. {He} has lost {his} {thing}. Here it is!",
)

PAIR_BOTH: tuple[str, ...] = (
    "{A} is {look}. {B} is {lookB}.",
    "{A}, {look}, and {B}, {lookB}, are friends.",
    "Once there were two friends: {A}, {look}, and {B}, {lookB}.",
    "Here are {A}, {look}, and {B}, {lookB}.",
    "Meet {A}, {look}, and {B}, {lookB}.",
)
PAIR_BARE: tuple[str, ...] = (
    "{A} the {noun} and {B} the {nounB} are friends.",
    "{A} the {noun} plays with {B} the {nounB}.",
    "{A} the {noun} lives {home} with {B} the {nounB}.",
    "{A} the {noun} and {B} the {nounB} are {home}.",
)
PAIR_PICTURE: tuple[str, ...] = (
    "{A} is on the {side} and {B} is on the {opposite}.",
    "On the {side} is {A}. On the {opposite} is {B}.",
    "Here are {A}, on the {side}, and {B}, on the {opposite}.",
    "These are {A} and {B}. {A} is on the {side}.",
    "{A}, on the {side}, and {B}, on the {opposite}, are friends.",
)
PAIR_WORDS: tuple[str, ...] = (
    "In {obj} live {A}, {look}, and {B}, {lookB}.",
    "{A} is {look}. {B} is {lookB}. They live in {obj}.",
    "There is {obj}. It belongs to {A}, {look}, and {B}, {lookB}.",
)
MEET_BOTH: tuple[str, ...] = (
    "{A} meets {B}, {lookB}.",
    "{A} has a friend named {B}. {B} is {lookB}.",
    "{A} says hello to {B}, {lookB}.",
    "{B}, {lookB}, comes to see {A}.",
    "Then {A} meets {B}. {B} is {lookB}.",
)
MEET_PICTURE: tuple[str, ...] = (
    "{A} meets {B}.",
    "{A} has a friend named {B}.",
    "{A} says hello to {B}.",
    "{B} comes to see {A}.",
    "{A} makes a new friend. It is {B}!",
)
