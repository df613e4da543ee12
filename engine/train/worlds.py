"""Invented worlds: entities, attributes that change, and the sentences and questions about them.

Nothing in here is true and no value is copied from a data set; it is there so that the model learns
to *read* notes instead of remembering facts.  Everything is drawn from a random.Random.

A relation is (entity kind, name, value kind, statements, updates, questions).  The last statement
and the last question of every relation, and all relations in HELD_OUT, are never trained on: they
are the check that reading was learned and not these sentences.
"""
RELATIONS = (
    ("person", "employer", "org",
     ("{e} works for {v}.", "{e} is employed by {v}.", "{v} is where {e} works.",
      "{e} has a post at {v}.", "{e} is on the payroll of {v}."),
     ("{e} left {o} and now works for {v}.", "{e} has moved from {o} to {v}."),
     ("Who does {e} work for?", "Who is the employer of {e}?", "Which company employs {e}?",
      "Where does {e} earn a living?")),
    ("person", "place of residence", "place",
     ("{e} lives in {v}.", "{e} has a flat in {v}.", "The home of {e} is in {v}.",
      "{v} is the town where {e} lives.", "{e} resides in {v}."),
     ("{e} has moved from {o} to {v}.", "{e} gave up the house in {o} and lives in {v} now."),
     ("Where does {e} live?", "In which town does {e} live?", "What is the home town of {e}?",
      "In which place has {e} made a home?")),
    ("person", "spouse", "person",
     ("{e} is married to {v}.", "{e} and {v} are married.", "The spouse of {e} is {v}.",
      "{v} is the partner of {e}.", "{e} wed {v} some years ago."),
     ("After the divorce from {o}, {e} married {v}.",),
     ("Who is {e} married to?", "Who is the spouse of {e}?", "Whom did {e} marry?",
      "What is the name of {e}'s husband or wife?")),
    ("person", "favourite food", "food",
     ("{e} likes {v} best.", "The favourite food of {e} is {v}.", "{e} orders {v} every time.",
      "Nothing pleases {e} more than {v}.", "If you cook for {e}, make {v}."),
     ("{e} used to love {o} but prefers {v} now.", "It is no longer {o}: {e} now likes {v} best."),
     ("What does {e} like to eat best?", "What is the favourite food of {e}?",
      "Which dish does {e} prefer?", "What should one cook for {e}?")),
    ("person", "instrument", "instrument",
     ("{e} plays the {v}.", "The instrument of {e} is the {v}.", "{e} took up the {v} early.",
      "On stage {e} is heard on the {v}.", "{e} gives lessons on the {v}."),
     ("{e} has changed from the {o} to the {v}.",),
     ("Which instrument does {e} play?", "What does {e} play?", "What is the instrument of {e}?",
      "On what does {e} make music?")),
    ("person", "sport", "sport",
     ("{e} is associated with the sport of {v}.", "{e} competes in {v}.", "{e} trains for {v}.",
      "The sport of {e} is {v}.", "{v} is what {e} does at weekends."),
     ("{e} gave up {o} and took up {v}.",),
     ("Which sport is {e} associated with?", "What sport does {e} do?",
      "In which sport does {e} compete?", "For which sport is {e} in training?")),
    ("person", "country of citizenship", "country",
     ("{e} is a citizen of {v}.", "{e} holds a passport of {v}.", "{e} has {v} citizenship.",
      "The citizenship of {e} is that of {v}.", "{v} counts {e} among its citizens."),
     ("{e}, formerly a citizen of {o}, is now a citizen of {v}.",),
     ("What is the country of citizenship of {e}?", "Which country is {e} a citizen of?",
      "Of which country does {e} hold a passport?", "Where is {e} a national?")),
    ("person", "phone extension", "code",
     ("{e} can be reached at extension {v}.", "The extension of {e} is {v}.", "Dial {v} for {e}.",
      "For {e}, ask for {v}.", "{e} answers on line {v}."),
     ("The extension of {e} has changed from {o} to {v}.",),
     ("What is the extension of {e}?", "At which extension can {e} be reached?",
      "Which number do I dial for {e}?", "How do I ring {e}?")),
    ("place", "mayor", "person",
     ("{v} is the mayor of {e}.", "The mayor of {e} is {v}.", "{e} is governed by {v}.",
      "{v} heads the council of {e}.", "The town hall of {e} is run by {v}."),
     ("{v} has replaced {o} as mayor of {e}.", "{v} was elected mayor of {e}, after {o}."),
     ("Who is the mayor of {e}?", "Who governs {e}?", "Who is the head of the council of {e}?",
      "Who is in charge at the town hall of {e}?")),
    ("place", "twin town", "place",
     ("{e} is twinned with {v}.", "The twin town of {e} is {v}.", "{e} and {v} are twin towns.",
      "{e} signed a partnership with {v}.", "{v} is joined to {e} by a town partnership."),
     ("{e} ended its partnership with {o} and is twinned with {v}.",),
     ("Which town is {e} twinned with?", "What is the twin town of {e}?",
      "With which town does {e} have a partnership?", "Who is the partner town of {e}?")),
    ("place", "population", "number",
     ("{e} has {v} inhabitants.", "The population of {e} is {v}.", "{v} people live in {e}.",
      "In {e} {v} residents were counted.", "The census gives {e} {v} people."),
     ("The population of {e} has changed from {o} to {v}.",),
     ("How many people live in {e}?", "What is the population of {e}?",
      "How many inhabitants does {e} have?", "What did the census count in {e}?")),
    ("place", "official language", "language",
     ("The official language of {e} is {v}.", "In {e} {v} is the official language.",
      "{e} uses {v} in its offices.", "{v} is the language of the courts in {e}.",
      "Papers in {e} are written in {v}."),
     ("{e} has replaced {o} by {v} as its official language.",),
     ("What is the official language of {e}?", "Which language is official in {e}?",
      "Which language do the offices of {e} use?", "In what language are papers in {e} written?")),
    ("org", "chief executive officer", "person",
     ("The chief executive officer of {e} is {v}.", "{v} is the CEO of {e}.", "{e} is led by {v}.",
      "{v} runs {e}.", "At the top of {e} stands {v}."),
     ("{e} has appointed {v} to succeed {o} as chief executive.",
      "{v} follows {o} as CEO of {e}."),
     ("Who is the CEO of {e}?", "Who is the chief executive officer of {e}?", "Who leads {e}?",
      "Who stands at the top of {e}?")),
    ("org", "headquarters location", "place",
     ("The headquarters of {e} is located in {v}.", "{e} is based in {v}.",
      "{e} has its head office in {v}.", "The main office of {e} is in {v}.",
      "{e} is run from {v}."),
     ("{e} has moved its headquarters from {o} to {v}.",),
     ("Where is {e} based?", "In which city is the headquarters of {e}?",
      "Where is the head office of {e}?", "From where is {e} run?")),
    ("org", "founder", "person",
     ("{e} was founded by {v}.", "{v} founded {e}.", "The founder of {e} is {v}.",
      "{v} set up {e}.", "{e} goes back to {v}."),
     ("It was {v}, not {o} as reported, who founded {e}.",),
     ("Who founded {e}?", "Who was the founder of {e}?", "By whom was {e} founded?",
      "To whom does {e} go back?")),
    ("org", "opening hour", "time",
     ("{e} opens at {v}.", "The doors of {e} open at {v}.", "Opening time of {e}: {v}.",
      "From {v} on {e} is open.", "You can call at {e} from {v}."),
     ("{e} now opens at {v} instead of {o}.",),
     ("When does {e} open?", "At what time does {e} open?", "What is the opening time of {e}?",
      "From when on can one call at {e}?")),
    ("org", "share price", "amount",
     ("One share of {e} costs {v}.", "{e} closed at {v}.", "The share price of {e} is {v}.",
      "Shares of {e} trade at {v}.", "For a share of {e} buyers pay {v}."),
     ("The share price of {e} went from {o} to {v}.",),
     ("What is the share price of {e}?", "At which price do shares of {e} trade?",
      "How much does one share of {e} cost?", "What do buyers pay for a share of {e}?")),
    ("product", "latest version", "version",
     ("{e} {v} has been released.", "Version {v} of {e} is available.", "{e}: {v} is out.",
      "The newest release of {e} is {v}.", "Users of {e} should install {v}."),
     ("{e} {v} is out and replaces {o}.", "{v} of {e} is now the latest release; users of {o} are "
      "advised to upgrade."),
     ("What is the latest version of {e}?", "Which release of {e} is the newest?",
      "What is the most recent {e} release?", "Which {e} should be installed?")),
    ("product", "licence", "licence",
     ("{e} is published under the {v} licence.", "The licence of {e} is {v}.",
      "{e} comes under {v} terms.", "{e} may be used under {v}.", "Legal note for {e}: {v}."),
     ("{e} has changed its licence from {o} to {v}.",),
     ("Under which licence is {e} published?", "What is the licence of {e}?",
      "Which terms does {e} come under?", "What does the legal note for {e} say?")),
    ("product", "maintainer", "person",
     ("{e} is maintained by {v}.", "The maintainer of {e} is {v}.", "{v} looks after {e}.",
      "{v} merges all changes to {e}.", "Questions about {e} go to {v}."),
     ("{v} has taken over {e} from {o}.",),
     ("Who maintains {e}?", "Who is the maintainer of {e}?", "Who looks after {e}?",
      "To whom do questions about {e} go?")),
    ("product", "default port", "number",
     ("{e} listens on port {v}.", "The default port of {e} is {v}.", "{e} uses port {v}.",
      "Clients reach {e} on port {v}.", "Open port {v} for {e}."),
     ("The default port of {e} has changed from {o} to {v}.",),
     ("Which port does {e} use?", "What is the default port of {e}?",
      "On which port does {e} listen?", "Which port must be opened for {e}?")),
    ("product", "manufacturer", "org",
     ("{e} is produced by {v}.", "The manufacturer of {e} is {v}.", "{v} makes {e}.",
      "{e} comes from the works of {v}.", "{v} builds {e}."),
     ("Production of {e} has gone from {o} to {v}.",),
     ("Who makes {e}?", "Which company produces {e}?", "What is the manufacturer of {e}?",
      "From whose works does {e} come?")),
    ("project", "status", "status",
     ("The status of {e} is {v}.", "{e}: status {v}.", "{e} is listed as {v}.",
      "{e} stands at {v}.", "The board shows {e} as {v}."),
     ("The status of {e} went from {o} to {v}.", "{e} is no longer {o}; it is {v}."),
     ("What is the status of {e}?", "Which status does {e} have?",
      "{e}: what is its current status?", "How does the board show {e}?")),
    ("project", "lead", "person",
     ("{e} is led by {v}.", "The lead of {e} is {v}.", "{v} is in charge of {e}.",
      "{v} leads {e}.", "Responsible for {e}: {v}."),
     ("{v} has replaced {o} as lead of {e}.",),
     ("Who leads {e}?", "Who is in charge of {e}?", "Who is the lead of {e}?",
      "Who is responsible for {e}?")),
    ("project", "deadline", "date",
     ("The deadline of {e} is {v}.", "{e} is due on {v}.", "{e} must be ready by {v}.",
      "{e} ends on {v}.", "Delivery day of {e}: {v}."),
     ("The deadline of {e} was moved from {o} to {v}.",),
     ("When is {e} due?", "What is the deadline of {e}?", "By when must {e} be ready?",
      "What is the delivery day of {e}?")),
    ("project", "budget", "amount",
     ("The budget of {e} is {v}.", "{e} may spend {v}.", "{e} has {v} at its disposal.",
      "{v} were granted to {e}.", "Funds for {e}: {v}."),
     ("The budget of {e} was changed from {o} to {v}.",),
     ("What is the budget of {e}?", "How much may {e} spend?", "How much was granted to {e}?",
      "What funds are there for {e}?")),
    ("work", "author", "person",
     ("{e} was written by {v}.", "The author of {e} is {v}.", "{v} wrote {e}.",
      "{e} is a work of {v}.", "The title page of {e} names {v}."),
     ("{e}, long ascribed to {o}, was written by {v}.",),
     ("Who wrote {e}?", "Who is the author of {e}?", "By whom was {e} written?",
      "Whom does the title page of {e} name?")),
    ("work", "performer", "person",
     ("{e} was performed by {v}.", "{v} sang {e}.", "The performer of {e} is {v}.",
      "{e} is known in the version of {v}.", "On the record {e} is played by {v}."),
     ("{e}, first performed by {o}, is now performed by {v}.",),
     ("Who performed {e}?", "Who is the performer of {e}?", "Who sang {e}?",
      "Who plays {e} on the record?")),
    ("work", "country of origin", "country",
     ("{e} was created in the country of {v}.", "{e} comes from {v}.",
      "The country of origin of {e} is {v}.", "{e} has its origin in {v}.",
      "{v} is where {e} was made."),
     ("{e} comes from {v}, not from {o}.",),
     ("Which country was {e} created in?", "What is the country of origin of {e}?",
      "Where does {e} come from?", "In which country was {e} made?")),
    ("device", "reading", "measure",
     ("{e} reads {v}.", "The value of {e} is {v}.", "{e} shows {v}.", "Measured at {e}: {v}.",
      "The display of {e} gives {v}."),
     ("{e} went from {o} to {v}.", "{e} now reads {v} (before: {o})."),
     ("What does {e} read?", "What is the value of {e}?", "What was measured at {e}?",
      "What does the display of {e} give?")),
    ("device", "location", "room",
     ("{e} is kept in {v}.", "{e} stands in {v}.", "You find {e} in {v}.",
      "The place of {e} is {v}.", "{e} was put in {v}."),
     ("{e} was moved from {o} to {v}.",),
     ("Where is {e}?", "Where is {e} kept?", "In which place do I find {e}?",
      "Where was {e} put?")),
    ("place", "badge", "thing",
     ("The badge of {e} shows the {v}.", "{e} carries the {v} on its badge.",
      "As a badge {e} has picked the {v}.", "On flags of {e} one sees the {v}.",
      "{e} is known by its badge, the {v}."),
     ("{e} has given up the {o} as its badge for the {v}.", "The badge of {e} became the {v}."),
     ("What is the badge of {e}?", "What does the badge of {e} show?", "What is on {e}'s flags?",
      "By which badge is {e} known?")),
    ("place", "pub", "thing",
     ("The pub of {e} is called the {v}.", "In {e} people drink at the {v}.",
      "The pub at {e} goes by the name of the {v}.", "{e} has one pub, the {v}.",
      "Ask for the {v} when you are thirsty in {e}."),
     ("The pub at {e}, once the {o}, was renamed the {v}.", "The pub of {e} now bears the name "
      "the {v}."),
     ("What is the pub of {e} called?", "Where do people drink in {e}?",
      "What is the name of the pub at {e}?", "Which pub does {e} have?")),
    ("org", "code word", "thing",
     ("The code word of {e} is {v}.", "To get into {e}, say {v}.", "{e} uses the code word {v}.",
      "Say {v} at the gate of {e}.", "{e} lets you in for the words {v}."),
     ("The code word of {e} was changed from {o} to {v}.", "Since today the code word of {e} is "
      "{v}."),
     ("What is the code word of {e}?", "Which code word does {e} use?", "How do I get into {e}?",
      "What must be said at the gate of {e}?")),
    ("person", "boat", "thing",
     ("{e} sails the {v}.", "The boat of {e} is the {v}.", "{e} owns a boat, the {v}.",
      "The {v} belongs to {e}.", "{e} goes out on the {v}."),
     ("{e} sold the {o} and sails the {v} now.", "Instead of the {o}, {e} now sails the {v}."),
     ("Which boat does {e} sail?", "What is the boat of {e} called?", "What boat does {e} own?",
      "On what does {e} go out?")),
    # never trained on
    ("person", "pet", "animal",
     ("{e} keeps a {v}.", "The pet of {e} is a {v}.", "{e} has a {v} at home."),
     ("{e} gave away the {o} and has a {v} now.",),
     ("Which pet does {e} have?", "What animal does {e} keep?", "What is the pet of {e}?")),
    ("place", "patron", "person",
     ("The patron of {e} is {v}.", "{e} has {v} as its patron.", "{v} is honoured in {e}."),
     ("{e} has exchanged its patron {o} for {v}.",),
     ("Who is the patron of {e}?", "Whom does {e} honour?", "Which patron does {e} have?")),
    ("org", "colour", "colour",
     ("The colour of {e} is {v}.", "{e} paints its vans {v}.", "{v} is the colour of {e}."),
     ("{e} has changed its colour from {o} to {v}.",),
     ("What is the colour of {e}?", "Which colour does {e} have?", "How does {e} paint its vans?")),
    ("product", "file format", "code",
     ("{e} saves its files as {v}.", "The file format of {e} is {v}.", "{e} writes {v} files."),
     ("{e} has changed its file format from {o} to {v}.",),
     ("What is the file format of {e}?", "Which files does {e} write?",
      "As what does {e} save its files?")),
    ("device", "owner", "person",
     ("{e} belongs to {v}.", "The owner of {e} is {v}.", "{v} owns {e}."),
     ("{e} went from {o} to {v}.",),
     ("Who owns {e}?", "Who is the owner of {e}?", "To whom does {e} belong?")),
)
HELD_OUT = ("pet", "patron", "colour", "file format", "owner")

FIRST = ("Anna Ben Carla David Elif Femi Greta Hugo Ines Jakob Karin Liam Mara Nils Olga Pedro "
         "Rosa Samir Tessa Umar Vera Wanda Xenia Yusuf Zoe Amara Bruno Chloe Dmitri Esther Farid "
         "Gwen Hana Igor Joana Kofi Leila Marek Nadia Otto Priya Quentin Rafael Sofia Tomas Ursula "
         "Viktor William Yara Zane Mei Arjun Keiko Sven Paulo Ingrid Aldo Moira Cedric Noor").split()
MIDDLE = ("ka lo ri ve mu sha ten dor bel mi ran os ta gri fen hal ny pra quo sel thi wen zar "
          "ul").split()
ENDS = {"person": ("son", "sen", "ova", "mann", "elli", "ard", "ez", "ak", "ley", "well", "ström"),
        "place": ("burg", "ton", "by", "ford", "stad", "ville", "mouth", "heim", "ovo", "field"),
        "country": ("ia", "land", "stan", "ova", "ique"),
        "org": (" Group", " Ltd", " & Sons", " Institute", " Bank", " Museum", " Rovers", " Labs",
                " University", ""),
        "product": ("", "DB", " OS", "Kit", " Server", "ix", " Studio", "JS", " Pro"),
        "language": ("ish", "ese", "ic", "an")}
LISTS = {
    "food": "lentil soup|plum cake|grilled trout|mushroom pie|pea risotto|rye bread|fish stew|"
            "apple pancakes|pickled herring|corn fritters|lamb curry|rice pudding|beetroot salad",
    "instrument": "cello|oboe|trumpet|harp|accordion|viola|bassoon|banjo|clarinet|marimba|flute|"
                  "double bass|organ",
    "sport": "rowing|fencing|handball|chess boxing|curling|judo|water polo|archery|basketball|"
             "cricket|orienteering|ice hockey|association football|badminton",
    "licence": "MIT|BSD-2-Clause|Apache-2.0|GPL-3.0|MPL-2.0|LGPL-2.1|Zlib|EUPL-1.2|CC0-1.0",
    "status": "Draft|Active|Accepted|Rejected|Deferred|Final|Withdrawn|Superseded|Open|Closed|"
              "In Review|On Hold|Blocked|Done|Planned|Incomplete|Provisional",
    "room": "the north attic|room 214|the boiler room|cabinet 7|the lower yard|hall C|"
            "the dark room|locker 33|the east wing|the workshop|shelf B12|the archive",
    "animal": "parrot|tortoise|ferret|whippet|gecko|rabbit|terrier|goldfish|hedgehog|canary",
    "shade": "rusty|pale|purple|merry|lonely|crooked|tin|brass|glass|woollen|sleepy|burning|dusty|"
             "polished|eastern|western|tall|tiny|blind|singing",
    "object": "badger|otter|kite|spoon|bucket|raven|pear|chestnut|wagon|drum|needle|stork|lobster|"
              "trumpet|chimney|teapot|plough|hare|comet|bell|oak|whistle|carpet|goose",
    "colour": "turquoise|dark red|ochre|silver|lime green|navy blue|purple|ivory|bronze",
}
LISTS = {k: v.split("|") for k, v in LISTS.items()}
MONTHS = ("January February March April May June July August September October November "
          "December").split()


def stem(rng):
    return "".join(rng.choice(MIDDLE) for _ in range(rng.choice((1, 2, 2, 2, 3)))).capitalize()


def value(rng, kind):
    """One value of a kind, as text."""
    if kind in LISTS:
        return rng.choice(LISTS[kind])
    if kind == "person":
        return rng.choice(FIRST) + " " + stem(rng) + rng.choice(ENDS["person"])
    if kind == "thing":
        return rng.choice(LISTS["shade"]) + " " + rng.choice(LISTS["object"])
    if kind == "number":
        return rng.choice((str(rng.randint(20, 999)),
                           f"{rng.randint(1, 89)},{rng.randint(100, 999)}",
                           str(rng.randint(1000, 65000))))
    if kind == "version":
        return ".".join(str(rng.choice((rng.randint(0, 9), rng.randint(0, 40))))
                        for _ in range(rng.choice((2, 3, 3, 3, 4))))
    if kind == "date":
        return rng.choice((f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1990, 2030)}",
                           f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}-"
                           f"{rng.randint(1, 28):02}"))
    if kind == "time":
        return f"{rng.randint(6, 11)}:{rng.choice(('00', '15', '30', '45'))}"
    if kind == "amount":
        return rng.choice((f"{rng.randint(2, 990)}.{rng.randint(10, 99)} euros",
                           f"{rng.randint(2, 99)} million dollars",
                           f"{rng.randint(1, 99)},{rng.randint(100, 999)} francs"))
    if kind == "measure":
        return f"{rng.randint(1, 99)}.{rng.randint(0, 9)} " + rng.choice(
            ("degrees", "bar", "kg", "volts", "metres", "percent"))
    if kind == "code":
        return rng.choice((str(rng.randint(1000, 9999)), stem(rng).upper()[:3]
                           + str(rng.randint(1, 99)),
                           f"{rng.randint(10, 99)}-{rng.randint(10, 99)}"))
    return stem(rng) + rng.choice(ENDS[kind])


def entity(rng, kind):
    """A name for an entity of a kind, as it stands in the middle of a sentence."""
    if kind == "project":
        return rng.choice(("Project {}", "Ticket {}", "Proposal {}", "PEP {}", "Task {}",
                           "RFC {}")).format(rng.choice((stem(rng), str(rng.randint(10, 9999)))))
    if kind == "work":
        word = rng.choice(("River", "Night", "Garden", "Letter", "Winter", "Stone", "Bird", "House",
                           "Road", "Dance", "Window", "Clock"))
        return rng.choice((f"The {word} of {stem(rng)}", f"{stem(rng)}'s {word}", f"{word} Song",
                           f"The {stem(rng)} {word}"))
    if kind == "device":
        return rng.choice(("Sensor {}", "the {} pump", "Gauge {}", "the {} lamp", "Station {}",
                           "Meter {}")).format(rng.choice((stem(rng), f"K{rng.randint(1, 99)}")))
    return value(rng, kind)


def upper(text):
    return text[:1].upper() + text[1:]


class Fact:
    """One (entity, relation) with values in order of time; statements and questions about it."""

    def __init__(self, rng, relation, name=None, versions=2):
        self.rng, self.relation = rng, relation
        self.kind, self.attribute, self.value_kind = relation[:3]
        self.entity = name or entity(rng, self.kind)
        self.values = []
        while len(self.values) < versions:
            v = value(rng, self.value_kind)
            if v not in self.values and v != self.entity:
                self.values.append(v)

    def wordings(self, which, held_out):
        """Trained wordings are all but the last; held-out ones only the last.  A relation that is
        held out has no trained wording at all."""
        return which[-1:] if held_out and self.attribute not in HELD_OUT else \
            which if self.attribute in HELD_OUT else which[:-1]

    def title(self):
        return self.rng.choice((f"{upper(self.entity)} — {self.attribute}", upper(self.entity),
                                upper(self.entity)))

    def note(self, at, update=0.4, held_out=False):
        """(title, text) that states value number `at`, sometimes naming the one before."""
        if at and self.rng.random() < update and not held_out:
            text = self.rng.choice(self.relation[4]).format(e=self.entity, v=self.values[at],
                                                            o=self.values[at - 1])
        else:
            text = self.rng.choice(self.wordings(self.relation[3], held_out)).format(
                e=self.entity, v=self.values[at])
        return [self.title(), upper(text)]

    def question(self, held_out=False):
        return upper(self.rng.choice(self.wordings(self.relation[5], held_out)).format(
            e=self.entity))

    def sentence(self, at):
        return upper(self.relation[3][0].format(e=self.entity, v=self.values[at]))


def trained():
    return [r for r in RELATIONS if r[1] not in HELD_OUT]


def history(rng):
    """An entity's value over several periods in one note; (title, text, [(question, answer)])."""
    who = value(rng, "person")
    kind, verb, ask = rng.choice((
        ("place", "lived in", "Where did {e} live"), ("org", "worked for", "Who did {e} work for"),
        ("org", "played for", "Which team did {e} play for"),
        ("org", "was a member of", "Of what was {e} a member"),
        ("org", "studied at", "Where did {e} study"),
        ("status", "held the position of {v} commissioner", "Which position did {e} hold"),
        ("person", "was married to", "Who was {e} married to")))
    if kind == "status":
        kind, verb, ask = "place", "was governor of", "Of which place was {e} governor"
    names, years = [], [rng.randint(1780, 2005)]
    while len(names) < rng.randint(2, 4):
        v = value(rng, kind)
        if v not in names:
            names.append(v)
            years.append(years[-1] + rng.randint(2, 9))
    spans = list(zip(names, years, years[1:]))
    style = rng.randrange(4)
    if style == 0:
        parts = [f"{n} ({a}–{b})" for n, a, b in spans]
        text = f"{who} {verb} " + ", ".join(parts[:-1]) + " and " + parts[-1] + "."
    elif style == 1:
        text = " ".join(f"{'He' if i else who} {verb} {n} from {a} to {b}."
                        for i, (n, a, b) in enumerate(spans))
    elif style == 2:
        text = "\n".join(f"- {n}, {rng.choice(MONTHS)} {a} – {rng.choice(MONTHS)} {b}"
                         for n, a, b in spans)
    else:
        text = f"In {spans[0][1]} {who} {verb} {spans[0][0]}. " + " ".join(
            f"In {a} he moved on and {verb} {n} until {b}." for n, a, b in spans[1:])
        spans[0] = (spans[0][0], spans[0][1], spans[1][1])
    asked = []
    for n, a, b in spans:
        form = ask.format(e=who)
        inside = rng.randint(a, b - 1) if b - a < 2 else rng.randint(a + 1, b - 1)
        when = rng.choice((f"from {a} to {b}", f"from {a} to {b}", f"in {inside}",
                           f"in {rng.choice(MONTHS)[:3]} {inside}", f"between {a} and {b}",
                           f"between {rng.choice(MONTHS)[:3]} {inside} and {b}"))
        asked.append((rng.choice((f"{form} {when}?", f"{form} {when}?",
                                  f"{upper(when)}, {form[0].lower() + form[1:]}?")), n))
        asked.append((f"{form}? (as of {inside}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02})",
                      n))
    asked.append((f"{ask.format(e=who)} before {spans[0][2]}?", spans[0][0]))
    asked.append((f"{ask.format(e=who)} after {spans[-1][1]}?", spans[-1][0]))
    topic = rng.choice(("", " — Life", " — Career", " — Biography", " — Personal life"))
    return [who + topic, text], asked


def named(key):
    return "creation date" if key == "Created" else key.lower()


def record(rng):
    """A header of `Key: value` lines, as in proposals and tickets; (note, older note, fields)."""
    kind = rng.choice(("Proposal", "Ticket", "Case", "RFC", "Issue", "PEP", "Order"))
    number = rng.randint(2, 9999)
    topic = rng.choice(("Rules for", "Removal of", "Support for", "Better", "Faster")) + " " + \
        rng.choice(("imports", "logs", "invoices", "tests", "tyres", "filters", "strings", "menus",
                    "timetables", "shelves")) + " " + stem(rng)
    keys = {"Author": value(rng, "person"), "Status": value(rng, "status"),
            "Type": rng.choice(("Standards Track", "Informational", "Process", "Feature", "Bug")),
            "Created": value(rng, "date"), "Version": value(rng, "version"),
            "Owner": value(rng, "person"), "Priority": rng.choice(("low", "high", "normal"))}
    chosen = ["Status"] + rng.sample([k for k in keys if k != "Status"], rng.randint(2, 4))
    rng.shuffle(chosen)
    older = dict(keys)
    for k in ("Status", "Version", "Owner"):
        while older[k] == keys[k]:
            older[k] = value(rng, {"Owner": "person"}.get(k, k.lower()))

    def text(fields):
        return f"{kind}: {number}\nTitle: {topic}\n" + "\n".join(f"{k}: {fields[k]}"
                                                                 for k in chosen)

    title = f"{kind} {number} — {topic}"
    name = rng.choice((f"{kind} {number} ({topic})", f"{kind} {number}", f'{kind} {number}, '
                       f'"{topic}",'))
    asked = []
    for k in chosen:
        low = named(k)
        form = rng.choice((f"What is the {low} of {name.rstrip(',')}?",
                           f"Which {low} does {name} have?",
                           f"{name.rstrip(',')}: what is its current {low}?"))
        asked.append((form, keys[k], k in ("Status", "Version", "Owner") and older[k]))
    missing = [k for k in keys if k not in chosen]
    lacking = [f"What is the {named(k)} of {name.rstrip(',')}?" for k in missing]
    return [title, text(keys)], [title, text(older)], asked, lacking
