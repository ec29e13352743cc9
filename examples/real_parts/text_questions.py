"""Questions without a clip."""

# Answered by the language model itself before training, as rows of training that keep it able to answer text. There are
# many, since training would overfit to a few.
_FORMS = {
    "What is {}?": (
        "water made of", "the moon", "a verb", "a triangle", "bread made of", "ice", "a house", "gravity", "a computer",
        "music", "democracy", "an atom", "a volcano", "the internet", "glass made of", "a poem", "electricity", "money",
        "a bicycle", "philosophy", "a desert", "the heart", "a library", "oxygen", "the equator", "an island", "silk",
        "a metaphor", "the past tense of go", "the plural of mouse", "the boiling point of water", "ten minus six",
        "three times four", "half of ten", "twenty plus five", "the currency of Japan", "the longest river",
    ),
    "What is the capital of {}?": (
        "Spain", "Italy", "Germany", "Japan", "Egypt", "Canada", "Brazil", "India", "Norway", "Greece", "Peru", "Kenya",
    ),
    "Name {}.": (
        "two fruits", "three animals", "a European river", "a musical instrument", "a country in Africa", "two sports",
        "a famous scientist", "a yellow fruit", "three tools", "two cities in Asia", "a board game", "three months",
        "two metals", "a bird that cannot fly", "a famous painter", "two languages", "three kinds of tree", "a season",
    ),
    "Write one sentence about {}.": (
        "mountains", "autumn", "friendship", "a train", "coffee", "the moon", "a garden", "school", "rivers", "dogs",
        "the city at night", "cooking", "rain", "a journey", "football", "an old house", "bread", "stars", "a letter",
    ),
    "Write a short {}.": ("poem about spring", "greeting", "story about a fox", "joke", "letter to a friend", "riddle"),
    "What do {} eat?": ("cows", "lions", "rabbits", "frogs", "whales", "ants", "horses", "spiders", "cats"),
    "What does a {} do?": ("doctor", "teacher", "baker", "farmer", "pilot", "judge", "plumber", "nurse", "tailor"),
    "What is the opposite of {}?": ("big", "fast", "dark", "wet", "happy", "old", "rich", "loud", "soft", "early"),
    "Give a synonym of {}.": ("quick", "sad", "large", "clever", "angry", "small", "beautiful", "brave", "tired"),
    "Who was {}?": (
        "Albert Einstein", "Marie Curie", "Julius Caesar", "Mozart", "Leonardo da Vinci", "Cleopatra", "Isaac Newton",
        "Charles Darwin", "Plato", "Napoleon", "Galileo",
    ),
    "Who {}?": (
        "painted the Mona Lisa", "wrote Romeo and Juliet", "invented the telephone", "wrote War and Peace",
        "composed the Ninth Symphony", "was the first man on the moon", "wrote the Odyssey", "discovered penicillin",
    ),
    "How do you say {} in {}?": (
        "'thank you'|Spanish", "'good night'|German", "'hello'|Italian", "'please'|French", "'friend'|Latin",
        "'water'|Spanish", "'bread'|French", "'yes'|Russian",
    ),
    "How many {}?": (
        "days has a week", "legs has a spider", "hours has a day", "sides has a square", "letters has the alphabet",
        "players has a football team", "strings has a violin", "minutes has an hour",
    ),
    "Tell me a fact about {}.": ("cats", "the sea", "Mars", "elephants", "honey", "trees", "the brain", "snow", "iron"),
    "Why {}?": (
        "is the sky blue", "do leaves fall", "do we sleep", "is the sea salty", "does ice float", "do birds sing",
        "do people laugh", "does iron rust", "is exercise healthy",
    ),
    "Explain {} in one sentence.": ("rain", "photosynthesis", "inflation", "a magnet", "evolution", "a rainbow"),
    "Which {}?": (
        "planet is the largest", "month comes after May", "animal is the tallest", "metal is liquid", "day ends a week",
        "ocean lies between Europe and America", "number follows nine", "continent is the smallest",
    ),
    "What colour is {}?": ("grass", "a lemon", "snow", "the sky", "coal", "blood", "an orange"),
}  # fmt: skip
TEXT_TRAINING = tuple(form.format(*words.split("|")) for form, some in _FORMS.items() for words in some)
TEXT_HELD_OUT = (
    "What is the capital of France?", "Name three colours.", "Two plus three is what?", "Who wrote Hamlet?",
    "Write one sentence about the sea.", "What do bees make?", "Translate 'good morning' into French.",
    "Which planet is known as the red planet?", "What is the opposite of hot?", "Give a synonym of happy.",
    "What is the largest ocean?", "Name two vegetables.", "What is seven plus eight?", "Who discovered gravity?",
    "Write one sentence about winter.", "What do birds eat?", "What is a noun?", "How many months has a year?",
    "What is the sun?", "What is paper made of?",
)  # fmt: skip
