//! Porter's stemmer (Porter, 1980) with the changes that NLTK makes to it, since published ROUGE scores use those.
//!
//! The changes: a list of irregular words; `ies` and `ied` keep an `e` after one letter; `y` becomes `i` only after a
//! consonant that is not alone; a stem of vowel and consonant counts as short; `bli`, `alli`, `fulli` and `logi` in
//! step 2.

/// Stems a word of ASCII lower-case letters and digits. Digits count as consonants.
pub(super) fn stem(word: &str) -> String {
    if let Some(stem) = irregular(word) {
        return stem.to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let word = plural(word.to_owned());
    let word = past_or_participle(word);
    let word = final_y(word);
    let word = double_suffix(word);
    let word = replace(word, &STEP_3, 0);
    let word = last_suffix(word);
    final_double_l(final_e(word))
}

fn irregular(word: &str) -> Option<&'static str> {
    Some(match word {
        "sky" | "skies" => "sky",
        "dying" => "die",
        "lying" => "lie",
        "tying" => "tie",
        "news" => "news",
        "innings" | "inning" => "inning",
        "outings" | "outing" => "outing",
        "cannings" | "canning" => "canning",
        "howe" => "howe",
        "proceed" => "proceed",
        "exceed" => "exceed",
        "succeed" => "succeed",
        _ => return None,
    })
}

/// Step 1a.
fn plural(word: String) -> String {
    if let Some(rest) = word.strip_suffix("ies") {
        return rest.to_owned() + if rest.len() == 1 { "ie" } else { "i" };
    }
    match word.strip_suffix("sses") {
        Some(rest) => format!("{rest}ss"),
        None if word.ends_with("ss") => word,
        None => word.strip_suffix('s').unwrap_or(&word).to_owned(),
    }
}

/// Step 1b.
fn past_or_participle(word: String) -> String {
    if let Some(rest) = word.strip_suffix("ied") {
        return rest.to_owned() + if rest.len() == 1 { "ie" } else { "i" };
    }
    if let Some(rest) = word.strip_suffix("eed") {
        return if measure(rest) > 0 { format!("{rest}ee") } else { word };
    }
    let stripped = ["ed", "ing"].iter().filter_map(|suffix| word.strip_suffix(suffix)).find(|rest| has_vowel(rest));
    let Some(rest) = stripped else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|end| rest.ends_with(end)) {
        format!("{rest}e")
    } else if ends_with_double_consonant(rest) {
        let keep = usize::from(!rest.ends_with(['l', 's', 'z']));
        rest[..rest.len() - keep].to_owned()
    } else if measure(rest) == 1 && is_short(rest) {
        format!("{rest}e")
    } else {
        rest.to_owned()
    }
}

/// Step 1c.
fn final_y(word: String) -> String {
    match word.strip_suffix('y') {
        Some(rest) if rest.len() > 1 && consonants(rest).last() == Some(true) => format!("{rest}i"),
        _ => word,
    }
}

/// Step 2.
fn double_suffix(word: String) -> String {
    match word.strip_suffix("alli") {
        Some(rest) if measure(rest) > 0 => double_suffix(format!("{rest}al")),
        _ => match word.strip_suffix("logi") {
            Some(rest) => {
                if measure(&format!("{rest}l")) > 0 {
                    format!("{rest}log")
                } else {
                    word
                }
            }
            None => replace(word, &STEP_2, 0),
        },
    }
}

/// Step 4.
fn last_suffix(word: String) -> String {
    match word.strip_suffix("ion") {
        Some(rest) if rest.ends_with(['s', 't']) && measure(rest) > 1 => rest.to_owned(),
        Some(_) => word,
        None => replace(word, &STEP_4, 1),
    }
}

/// Step 5a.
fn final_e(word: String) -> String {
    match word.strip_suffix('e') {
        Some(rest) if measure(rest) > 1 || (measure(rest) == 1 && !is_short(rest)) => rest.to_owned(),
        _ => word,
    }
}

/// Step 5b.
fn final_double_l(word: String) -> String {
    match word.strip_suffix('l') {
        Some(rest) if rest.ends_with('l') && measure(rest) > 1 => rest.to_owned(),
        _ => word,
    }
}

const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];
const STEP_3: [(&str, &str); 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];
const STEP_4: [(&str, &str); 18] = [
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

/// Applies the first rule whose suffix fits, if what is left has a measure above `over`; later rules are not tried.
fn replace(word: String, rules: &[(&str, &str)], over: usize) -> String {
    for (suffix, replacement) in rules {
        if let Some(rest) = word.strip_suffix(suffix) {
            return if measure(rest) > over { format!("{rest}{replacement}") } else { word };
        }
    }
    word
}

/// For each letter whether it is a consonant: `y` is one at the start and after a vowel.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    word.bytes().scan(false, |before, letter| {
        *before = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !*before,
            _ => true,
        };
        Some(*before)
    })
}

/// How often a consonant follows a vowel.
fn measure(word: &str) -> usize {
    consonants(word).zip(consonants(word).skip(1)).filter(|pair| *pair == (false, true)).count()
}

fn has_vowel(word: &str) -> bool {
    consonants(word).any(|consonant| !consonant)
}

fn ends_with_double_consonant(word: &str) -> bool {
    let mut letters = word.bytes().rev();
    let last = letters.next();
    last.is_some() && last == letters.next() && consonants(word).last() == Some(true)
}

/// Consonant, vowel, consonant other than `w`, `x`, `y` at the end; or just vowel and consonant.
fn is_short(word: &str) -> bool {
    let shape: Vec<bool> = consonants(word).collect();
    shape == [false, true] || (shape.ends_with(&[true, false, true]) && !word.ends_with(['w', 'x', 'y']))
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn stems_as_nltk_does() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("ties", "tie"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("generalization", "gener"),
            ("hopefulness", "hope"),
            ("adoption", "adopt"),
            ("decision", "decis"),
            ("controlling", "control"),
            ("skies", "sky"),
            ("radically", "radic"),
            ("archaeology", "archaeolog"),
            ("yyyying", "yyyi"),
            ("2nds", "2nd"),
            ("roll", "roll"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
