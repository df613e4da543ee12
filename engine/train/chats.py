"""What people say to an assistant besides questions about their notes: small talk, ordinary requests,
and things they tell it to remember.

A talk is {"q": what is said, "a": the reply, "alone": True where it is a request for knowledge that
only stands without notes (with notes before it, the notes are what is asked)}.  Replies to ordinary
requests are the base model's own (train_reader.py asks it once); those of small talk, and the word
with which a thing told is taken, are written here.
"""
import re

from notes import VALUES, fill, split_templates, values_for
from worlds import LISTS, value

NOTED = "Noted."
TOLD = re.compile(r"\b(I|I'm|I've|my|My|we|We|our|Our)\b")

SMALL_TALK = (
    (("Hello!", "Hi", "hi there", "Hey", "Hello there.", "Good day!", "Greetings."),
     "Hello! What would you like to know?"),
    (("Good morning.", "good morning!", "Morning!"), "Good morning! What would you like to know?"),
    (("Good evening.", "Evening!"), "Good evening! What would you like to know?"),
    (("How are you?", "Hi, how are you doing?", "how's it going", "How do you do?",
      "Hey, how are things?", "Are you well?"), "I am well, thank you. How can I help?"),
    (("Thanks!", "Thank you.", "thanks a lot", "Thank you very much!", "Great, thanks.", "cheers",
      "Perfect, thank you.", "That helps, thanks."), "You are welcome."),
    (("Goodbye.", "Bye!", "See you tomorrow.", "Good night.", "bye for now", "See you later!"),
     "Goodbye!"),
    (("Sorry, my mistake.", "Oops, sorry.", "I am sorry about that."), "No problem."),
    (("OK", "Okay.", "All right.", "I see.", "Good to know.", "Great!", "Got it.", "Fine."),
     "Good. Anything else?"),
    (("Who are you?", "What are you?", "What is your name?", "Are you a human?", "Are you a robot?"),
     "I am a language model with a memory on disk."),
    (("What can you do?", "Can you help me?", "How do you work?", "I need your help.", "help"),
     "I remember what you tell me, and answer questions about it."),
)

# Requests for a text: the same with notes before them.
MAKE = (
    "Write a poem about {t}.", "Write a short story about {t}.", "Write two lines about {t}.",
    "Tell me a joke about {t}.", "Write a limerick about {t}.", "Make up a slogan for {t}.",
    "Write a haiku about {t}", "Write a polite email about {t}.", "tell me a story about {t}",
    "Invent a title for a book about {t}.", "Write a birthday wish for someone who loves {t}.",
    "Suggest a name for a cafe that sells {t}.", "Write a riddle about {t}.",
    "Describe {t} in one sentence.", "Think of a name for a club for {t}.", "Sing me a song of {t}.",
    "Write a Python function that counts {t}.", "Suggest a name for a band that likes {t}.",
    "Write the first line of a novel about {t}.", "Make a short list of things about {t}.")

# Requests for what everybody may know.
KNOW = (
    "What is {t}?", "Explain {t} to a child.", "What is {t} good for?", "How does {t} work?",
    "Give me three facts about {t}.", "Why do people like {t}?", "What does the word {t} mean?",
    "What are the pros and cons of {t}?", "How do I learn about {t}?", "Plan a day around {t}.",
    "What is the history of {t}?", "Give me tips for {t}.", "How do you make {t}?",
    "What should I know about {t}?", "Is {t} dangerous?", "Where does {t} come from?",
    "Give me a recipe for {f}.", "How do I cook {f}?", "How long does {f} keep?",
    "What goes well with {f}?", "What can I make from {f} and {g}?", "Compare {f} and {g}.",
    "What is the difference between a {a} and a {b}?", "What does a {a} eat?",
    "How long does a {a} live?", "Where do {a}s live?", "How fast is a {a}?",
    "What is the capital of {c}?", "Which language is spoken in {c}?", "Where is {c}?",
    "What is {c} famous for?", "What should I see in {c}?", "Translate 'thank you' into {l}.",
    "How do you say hello in {l}?", "How far is {p} from the sun?", "What is {n} times {m}?",
    "How many minutes are {n} hours?", "What comes after {n}?")

TOPICS = ("gravity", "rain", "trains", "tea", "democracy", "the sea", "algebra", "chess", "snow",
          "running", "gardening", "the moon", "volcanoes", "sleep", "music", "painting", "bread",
          "bicycles", "winter", "spring", "books", "electricity", "magnets", "the heart", "money",
          "bees", "clouds", "paper", "glass", "soap", "rainbows", "stars", "dreams", "friendship",
          "exercise", "small talk", "job hunting", "camping", "swimming", "first dates", "Mondays",
          "the internet", "batteries", "yoga", "coffee", "mountains", "robots", "dinosaurs",
          "vaccines", "inflation", "meditation", "public speaking", "saving water", "old maps")
COUNTRIES = ("Spain", "Japan", "Brazil", "Egypt", "Norway", "Canada", "India", "Kenya", "Italy",
             "Poland", "Chile", "Greece", "Turkey", "Ireland", "Vietnam", "Mexico")
LANGUAGES = ("French", "German", "Italian", "Dutch", "Polish", "Latin", "Swedish", "Portuguese")
PLANETS = ("Mars", "Venus", "Jupiter", "Saturn", "Neptune", "the earth", "Mercury")


def request(rng, forms):
    food, animal = LISTS["food"], LISTS["animal"]
    f, g = rng.sample(food, 2)
    a, b = rng.sample(animal, 2)
    return rng.choice(forms).format(
        t=rng.choice(TOPICS), f=f, g=g, a=a, b=b, c=rng.choice(COUNTRIES),
        l=rng.choice(LANGUAGES), p=rng.choice(PLANETS), n=rng.randint(2, 90), m=rng.randint(2, 12))


def requests(rng, count):
    """[{"q", "alone"}] without replies, each once."""
    asked = {}
    while len(asked) < count:
        alone = rng.random() < 0.6
        asked[request(rng, KNOW if alone else MAKE)] = alone
    return [{"q": q, "alone": alone} for q, alone in asked.items()]


def small_talk():
    return [{"q": q, "a": reply, "alone": False} for said, reply in SMALL_TALK for q in said]


def told(rng, count):
    """Things told in the first person: short notes of the trained templates."""
    templates = [t for t in split_templates()[0] if len(t[1]) < 220 and TOLD.search(t[1])
                 and "\n" not in t[1]]
    return [{"q": fill(t[1], values_for(rng, t)), "a": NOTED, "alone": False}
            for t in (rng.choice(templates) for _ in range(count))]
