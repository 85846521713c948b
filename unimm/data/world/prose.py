"""The stories' sentences about characters, an event at a time.

Slots: ``{A}`` who acts (a name, or ``she``), ``{As}`` its possessive; its pronouns ``{he}``,
``{him}``, ``{his}``, ``{himself}``; ``{B}`` another character; ``{obj}`` a thing new to the story
(``a red balloon``), ``{the}`` a known one (``the balloon``); ``{place}`` where (``in the snow``),
``{home}`` the same if one can live there, ``{dest}`` where to (``the beach``); ``{hat}``,
``{worn}``, ``{colour}``.

A sentence names everything that its picture shows and nothing that it does not.
"""

IDLE: tuple[str, ...] = (
    "{A} dances and sings.",
    "{A} jumps for joy.",
    "{A} takes a deep breath.",
    "{A} is very happy.",
    "{A} goes for a walk {place}.",
    "{A} hums a little tune.",
    "{A} rests for a while.",
    "{A} dreams of great adventures.",
    "{A} laughs out loud.",
    "{A} feels brave.",
    "{A} wonders what will happen next.",
    "{A} looks around {place}.",
    "{A} runs and jumps {place}.",
    "{A} sits down and thinks.",
    "{A} tells a funny joke.",
    "{A} practises a little dance.",
    "{A} takes a nap {place}.",
    "{A} is looking for an adventure.",
    "{A} waves hello.",
    "{A} plays {place}.",
)
TRAVEL: tuple[str, ...] = (
    "{A} walks to {dest}.",
    "{A} runs all the way to {dest}.",
    "{A} goes to {dest}.",
    "{A} sets out for {dest}.",
    "{A} travels to {dest}.",
    "{A} comes to {dest}.",
    "{A} wants to see {dest} and walks there.",
    "{A} follows a long path to {dest}.",
    "{A} hurries to {dest}.",
    "It is a long way, but {A} reaches {dest}.",
)
MORNINGS: tuple[str, ...] = (
    "In the morning, ",
    "The next morning, ",
    "When the sun is up, ",
    "The next day, ",
)
SKY: dict[str, tuple[str, ...]] = {
    "night": (
        "Night falls. {A} looks up at the stars.",
        "It gets dark, and {A} counts the stars.",
        "Night comes. {A} is not afraid of the dark.",
        "The moon rises, and {A} smiles at it.",
        "Now it is night. {A} is getting sleepy.",
        "It is late. {A} sleeps under the stars.",
        "{A} watches the stars at night.",
        "Night falls, and {A} makes a wish.",
    ),
    "dusk": (
        "The sun goes down. {A} watches the sky.",
        "{A} watches the sunset.",
        "Evening comes, and {A} is tired.",
        "The day is almost over. {A} looks at the sunset.",
        "The sun sets, and {A} sings a quiet song.",
        "At dusk, {A} takes a last walk.",
    ),
    "snow": (
        "Snow begins to fall, and {A} laughs.",
        "It starts to snow. {A} dances in the snow.",
        "Winter comes, and {A} plays in the snow.",
        "Snow falls and falls. {A} leaves footprints in the snow.",
    ),
}
WAKE: tuple[str, ...] = (
    "The night is over. {A} wakes up {place}.",
    "The sun rises. Now {A} is {place}.",
    "In the morning, {A} wakes up {place}.",
    "A new day begins, and {A} stretches {place}.",
)
HOME: tuple[str, ...] = (
    "{A} goes back to {dest}.",
    "{A} is tired and walks back to {dest}.",
    "It is time to go back to {dest}. {A} smiles.",
    "{A} returns to {dest}.",
)

HAT_ON: tuple[str, ...] = (
    "{A} puts on {hat}.",
    "{A} finds {hat} and puts it on.",
    "{A} tries on {hat}. It fits!",
    "{A} gets {hat} as a present and puts it on.",
    "Now {A} wears {hat}.",
    "{A} puts {hat} on {his} head.",
)
HAT_SWAP: tuple[str, ...] = (
    "{A} swaps {his} {worn} for {hat}.",
    "{A} takes off {his} {worn} and puts on {hat}.",
    "Now {A} wears {hat}.",
)
HAT_OFF: tuple[str, ...] = (
    "{A} takes off {his} {worn}.",
    "The wind blows away {As} {worn}.",
    "Oh no! {A} loses {his} {worn}.",
    "{A} hangs {his} {worn} up and shakes {his} head.",
    "{A} puts away {his} {worn}.",
)
PAINT: tuple[str, ...] = (
    "{A} falls into {colour} paint. Now {he} is all {colour}!",
    "{A} jumps into a puddle of {colour} paint and turns {colour}.",
    "Splash! Now {A} is {colour} from head to toe.",
    "{A} paints {himself} {colour}.",
    "By magic, {A} turns {colour}.",
    "{A} wants to be {colour}. One wish later, {he} is {colour}!",
)
PLANT: tuple[tuple[str, ...], ...] = (
    (
        "{A} plants a seed.",
        "{A} puts a tiny seed into the ground.",
        "{A} digs a hole and plants a seed.",
        "{A} has a seed and plants it {place}.",
    ),
    (
        "A little sprout comes up. {A} waters it.",
        "{A} finds a little sprout where the seed was.",
        "The seed is now a sprout. {A} is so proud.",
        "{A} waters the little sprout every day.",
    ),
    (
        "The little plant is now a tall tree. {A} rests under it.",
        "It has become a big tree! {A} cannot believe it.",
        "Years go by. Now {A} has a tall tree.",
        "{A} looks up at the tree that was once a seed.",
    ),
)

# Two characters.
TOGETHER: tuple[str, ...] = (
    "{A} and {B} dance together.",
    "{A} hugs {B}.",
    "{A} waves to {B}.",
    "{A} and {B} laugh together.",
    "{A} and {B} sing a song.",
    "{A} runs after {B}.",
    "{A} tells {B} a secret.",
    "{A} and {B} play hide and seek.",
    "{A} and {B} go for a walk {place}.",
    "{A} helps {B}.",
)
TOGETHER_WITH: tuple[str, ...] = (
    "{A} and {B} play with {the}.",
    "{A} shows {the} to {B}.",
    "{A} and {B} look at {the}.",
    "{A} shares {the} with {B}.",
)
TOGETHER_TO: tuple[str, ...] = (
    "{A} and {B} walk to {dest}.",
    "{A} and {B} go to {dest} together.",
    "{A} takes {B} to {dest}.",
    "{A} and {B} run to {dest}.",
    "{A} and {B} travel to {dest}.",
)
GIVE: tuple[str, ...] = (
    "{A} gives {the} to {B}.",
    "{A} hands {the} to {B}.",
    "{A} gives {B} {the} as a present.",
    "{B} gets {the} from {A}.",
)
TOGETHER_CLOSERS: tuple[str, ...] = (
    "They are best friends.",
    "They laugh and laugh.",
    "What good friends!",
    "Together, everything is more fun.",
    "They smile at each other.",
)

OPENERS: tuple[str, ...] = (
    "Then ",
    "Soon ",
    "A little later, ",
    "After a while, ",
    "Next, ",
    "Before long, ",
    "After that, ",
    "Now ",
)
FIRST_OPENERS: tuple[str, ...] = ("One day, ", "Today, ")
CLOSERS: tuple[str, ...] = (
    "{He} smiles.",
    "{He} is so happy.",
    "{He} laughs.",
    "How wonderful!",
    "How nice!",
    "{He} feels good.",
    "Hooray!",
)
AMBIENCE: dict[str, tuple[str, ...]] = {
    "meadow": ("The grass is soft.", "The air smells of summer.", "The sun is warm."),
    "desert": ("The sand is hot.", "It is very warm.", "There is sand everywhere."),
    "snow": ("It is very cold.", "The snow is soft.", "The air is cold and clear."),
    "night": ("The stars are bright.", "It is very quiet.", "The moon is watching."),
    "dusk": ("The sky glows.", "The day was long.", "The evening is warm."),
    "beach": ("The waves are gentle.", "The sea is calm.", "The sand is warm."),
}
ENDINGS: tuple[str, ...] = (
    "The end.",
    "What a day!",
    "What a lovely day!",
    "It was the best day of all.",
    "And that is the end of the story.",
    "What a wonderful adventure!",
)
