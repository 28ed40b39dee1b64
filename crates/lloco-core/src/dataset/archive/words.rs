//! The lists that reports are made of.

pub(super) const FIRST_NAMES: [&str; 32] = [
    "Agnes", "Bertil", "Cora", "Dimitri", "Edda", "Fabian", "Greta", "Hakim", "Irma", "Jonas", "Katja", "Lorenz",
    "Mirjam", "Niall", "Odile", "Pavel", "Quirin", "Rosa", "Stellan", "Tamsin", "Ulrik", "Vera", "Wanda", "Xenia",
    "Yorick", "Zelda", "Anton", "Beatrix", "Casimir", "Dagny", "Emeka", "Farida",
];

pub(super) const LAST_NAMES: [&str; 40] = [
    "Abbot", "Bergstrom", "Castell", "Drummond", "Eklund", "Ferreira", "Galloway", "Holm", "Ibsen", "Jarvis",
    "Kessler", "Lund", "Marchetti", "Novak", "Osei", "Pascoe", "Quill", "Rademaker", "Sandoval", "Thorne", "Udall",
    "Vance", "Whitlock", "Yates", "Zeller", "Achterberg", "Brannigan", "Calloway", "Dufour", "Engstrom", "Fairweather",
    "Granger", "Hollis", "Ivarsson", "Jessup", "Kowalski", "Lindgren", "Moreau", "Nakamura", "Oduya",
];

/// First halves of place names.
pub(super) const PLACES: [&str; 20] = [
    "Alder", "Birch", "Cold", "Drover's", "Elm", "Fallow", "Grey", "Heron", "Iron", "Juniper", "Kettle", "Long",
    "Mill", "North", "Otter", "Pike", "Raven", "Stone", "Thorn", "Willow",
];

/// Second halves of place names.
pub(super) const KINDS: [&str; 16] = [
    "Bend", "Bridge", "Crossing", "Dam", "Ferry", "Ford", "Gate", "Harbour", "Island", "Landing", "Lock", "Mouth",
    "Pool", "Rapids", "Weir", "Wharf",
];

pub(super) const RIVERS: [&str; 8] = ["Arden", "Bell", "Carrow", "Dunning", "Esk", "Fenn", "Garrow", "Hale"];

pub(super) const TASKS: [&str; 12] = [
    "to read the gauge",
    "to survey the left bank",
    "to inspect the sluice",
    "to count the salmon",
    "to take samples of the water",
    "to sound the channel",
    "to check the foundations",
    "to map the gravel bars",
    "to repair the staff gauge",
    "to measure the current",
    "to clear the intake",
    "to look at the flood marks",
];

/// An instrument and what can break in it.
pub(super) const INSTRUMENTS: [(&str, [&str; 3]); 12] = [
    ("current meter", ["a worn bearing", "weed round the axle", "a bent vane"]),
    ("echo sounder", ["a flat battery", "a loose wire", "water in the housing"]),
    ("spirit level", ["a cracked vial", "a bent foot", "fog behind the glass"]),
    ("barometer", ["a leaking capsule", "a stuck needle", "a broken glass"]),
    ("rain gauge", ["a wasps' nest in the funnel", "a split seam", "a blocked siphon"]),
    ("theodolite", ["a scratched lens", "sand in the screw", "a loose leg"]),
    ("water sampler", ["a torn seal", "a broken spring", "a jammed lid"]),
    ("field telephone", ["a cut cable", "a dead battery", "a cracked earpiece"]),
    ("outboard engine", ["a sheared pin", "a fouled plug", "water in the fuel"]),
    ("thermometer", ["a gap in the column", "a broken case", "a faded scale"]),
    ("winch", ["a frayed rope", "a missing pawl", "rust in the gears"]),
    ("turbidity meter", ["a burnt lamp", "a stained window", "a blown fuse"]),
];

/// A decision and what may have led to it.
pub(super) const DECISIONS: [(&str, [&str; 2]); 20] = [
    ("to close the footbridge", ["two planks had rotted through", "the railing was gone on one side"]),
    ("to raise the embankment", ["the water had come within a hand of the top", "the houses behind it lie low"]),
    ("to move the gauge upstream", ["the mill race disturbs the reading", "boats kept striking the post"]),
    ("to dredge the channel", ["two barges had run aground", "the bed had silted up since the spring"]),
    ("to hire a second boatman", ["the ferryman is past seventy", "the boat cannot be held by one man"]),
    ("to fell the old poplars", ["the storm had brought one of them down", "their roots lift the wall"]),
    ("to replace the sluice gate", ["the old timbers were soft as cheese", "it could no longer be closed"]),
    ("to ban heavy carts", ["the road had sunk above the culvert", "one of the arches shows a crack"]),
    ("to build a fish ladder", ["the anglers had complained again", "the salmon gather below the sill"]),
    ("to lower the summer level", ["the meadows stayed wet until June", "the cellars of the village were damp"]),
    ("to put up a warning sign", ["a child had fallen in last week", "strangers do not know of the undertow"]),
    ("to drive new piles", ["the landing stage sways", "ice had cut through the old ones"]),
    ("to keep the ferry in harbour", ["the cable had begun to fray", "driftwood came down all day"]),
    ("to call the flood wardens", ["the river had risen for six days", "more rain was expected in the hills"]),
    ("to drain the old lock", ["a calf had been lost in it", "its walls must be looked at from inside"]),
    ("to line the canal with clay", ["a third of the water seeped away", "the fields below it were flooded"]),
    ("to open the spillway", ["the upper basin was full", "the turbine had been stopped for repairs"]),
    ("to postpone the survey", ["half of the party was ill", "the boat was needed elsewhere"]),
    ("to plant willows along the bank", ["the soil slips at every rain", "the cattle had trodden it bare"]),
    ("to lay sandbags at the mill", ["the yard had been under water twice", "the miller had asked for it in writing"]),
];

pub(super) const WINTER: [&str; 8] = [
    "Clear and cold, with ice along the edges.",
    "Fog until ten, then a pale sun.",
    "Sleet in the morning, rain in the evening.",
    "Snow on the hills, none in the valley.",
    "Hard frost, and the ink froze in the pens.",
    "Low cloud and no wind at all.",
    "A strong wind from the north made the boat hard to hold.",
    "Thaw, and the paths were deep in mud.",
];

pub(super) const SUMMER: [&str; 8] = [
    "Light rain all morning, clearing after noon.",
    "Warm and still, with many flies.",
    "Thunder in the evening, but no rain.",
    "Heavy showers, and the paths were under water.",
    "Dry, with dust on the roads.",
    "A strong wind from the west made the boat hard to hold.",
    "It rained so hard that the ink ran on the field sheets.",
    "Hail at noon, which broke a window of the hut.",
];

pub(super) const ASIDES: [&str; 20] = [
    "The keeper's wife gave us soup and would take no money for it.",
    "An otter was seen twice below the piles.",
    "The road from the station is passable again, except for the last mile.",
    "A school class watched us work and asked good questions.",
    "The miller lent us a ladder and two planks.",
    "We found the brass bolt of the old survey under a hand of moss.",
    "The field sheets of the last visit had been put into the wrong folder.",
    "A barge with timber waited an hour so as not to disturb the measurement.",
    "The boathouse has a new lock, and nobody had told us.",
    "Somebody had painted over the marks of the staff, and they had to be scraped clean.",
    "The ferryman says that the eels are late this year.",
    "The telephone line was down, so this report goes by post.",
    "A cow had fallen down the bank and was pulled out with a rope.",
    "The landlord of the inn remembers a higher flood in his father's time.",
    "We slept in the hut, which has a stove but no chimney to speak of.",
    "The baker's cart brought us here, since the lorry had a flat tyre.",
    "The old gauge book was found in the attic of the lock house.",
    "Children had hung a rope from the gauge post, which we left in place.",
    "Two swans have made their nest where the new path was to go.",
    "Half of the willow cuttings of last year have taken root.",
];

pub(super) const MONTHS: [(&str, usize); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];
