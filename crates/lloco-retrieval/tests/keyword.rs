//! Keyword search: equal to the formula, durable, suspicious of its files.
#![cfg(feature = "bm25")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use lloco_retrieval::{Error, Hit, KeywordIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const WORDS: [&str; 12] =
    ["pump", "cellar", "budget", "roof", "committee", "oil", "lamp", "quay", "bridge", "paint", "valve", "Monday"];

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((self.0 ^ (self.0 >> 29)) >> 16) % end
    }

    /// Of 1 to `most` words.
    fn some_text(&mut self, most: u64) -> String {
        let words = 1 + self.below(most);
        self.text(words)
    }

    fn text(&mut self, words: u64) -> String {
        let words: Vec<_> = (0..words).map(|_| WORDS[self.below(12).min(self.below(12)) as usize]).collect();
        words.join(" ")
    }
}

fn keys(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.key).collect()
}

/// BM25 as published, in f64, for texts of short words that stand for themselves.
fn expected(texts: &BTreeMap<u64, String>, query: &str) -> BTreeMap<u64, f64> {
    let count = texts.len() as f64;
    let average = texts.values().map(|text| text.split(' ').count()).sum::<usize>() as f64 / count;
    let score = |text: &str| -> f64 {
        let length = text.split(' ').count() as f64;
        let word = |word: &str| {
            let found = texts.values().filter(|text| text.split(' ').any(|other| other == word)).count() as f64;
            let times = text.split(' ').filter(|&other| other == word).count() as f64;
            let rare = (1.0 + (count - found + 0.5) / (found + 0.5)).ln();
            rare * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / average))
        };
        query.split(' ').map(word).sum()
    };
    texts.iter().map(|(&key, text)| (key, score(text))).filter(|(_, score)| *score > 0.0).collect()
}

#[test]
fn scores_equal_the_formula() {
    let mut random = Random(1);
    // Lengths up to 39 words are kept exactly, longer ones in steps.
    let texts: BTreeMap<u64, String> = (0..200).map(|key| (key, random.some_text(39))).collect();
    let mut index = KeywordIndex::in_memory().unwrap();
    index.update(&[], texts.iter().map(|(&key, text)| (key, text))).unwrap();
    for query in ["pump", "oil lamp", "bridge bridge quay", "valve Monday nowhere"] {
        let wanted = expected(&texts, query);
        let found = index.search(query, 500, None).unwrap();
        assert_eq!(keys(&found).into_iter().collect::<BTreeSet<_>>(), wanted.keys().copied().collect());
        for hit in &found {
            let wanted = wanted[&hit.key];
            assert!((f64::from(hit.score) - wanted).abs() < 1e-4 * wanted, "{query}: {} {wanted}", hit.score);
        }
        assert!(found.windows(2).all(|pair| (pair[1].score, pair[0].key) < (pair[0].score, pair[1].key)));
        assert_eq!(index.search(query, 7, None).unwrap(), found[..7.min(found.len())]);
    }
}

#[test]
fn a_filter_hides_texts() {
    let mut index = KeywordIndex::in_memory().unwrap();
    index.update(&[], (0..50).map(|key| (key, "the pump"))).unwrap();
    let hits = index.search("pump", 3, Some(&|key| key % 10 == 7)).unwrap();
    assert_eq!(keys(&hits), [7, 17, 27]);
}

/// A long walk of changes and openings, compared with a map after each step.
#[test]
fn any_history_equals_the_map_it_describes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyword");
    let mut random = Random(2);
    let mut texts = BTreeMap::new();
    let mut index = KeywordIndex::create(&path).unwrap();
    for _ in 0..25 {
        let gone: Vec<u64> = (0..random.below(4)).map(|_| random.below(60)).collect();
        let new: BTreeMap<u64, String> =
            (0..random.below(8)).map(|_| (random.below(60), random.some_text(9))).collect();
        index.update(&gone, new.iter().map(|(&key, text)| (key, text))).unwrap();
        texts.retain(|key, _| !gone.contains(key));
        texts.extend(new);
        if random.below(3) == 0 {
            drop(index);
            index = KeywordIndex::open(&path).unwrap();
        }
        let mut found = index.keys().unwrap();
        found.sort_unstable();
        assert_eq!(found, texts.keys().copied().collect::<Vec<_>>());
        assert_eq!(index.len(), texts.len());
        let found = keys(&index.search("pump oil", 100, None).unwrap());
        let wanted = texts.iter().filter(|(_, text)| text.split(' ').any(|word| word == "pump" || word == "oil"));
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted.map(|(&key, _)| key).collect());
    }
}

#[test]
fn queries_of_every_kind() {
    let mut index = KeywordIndex::in_memory().unwrap();
    assert!(index.search("pump", 3, None).unwrap().is_empty(), "an empty index");
    index.update(&[], [(1, "The pump is red. 東京都の水"), (2, "Nothing here"), (3, "")]).unwrap();
    for nothing in ["", " \n\t", "\0", "—!?", "absent"] {
        assert!(index.search(nothing, 3, None).unwrap().is_empty(), "{nothing:?}");
    }
    assert_eq!(keys(&index.search("PUMPS +(a:b) \"*~^[TO]", 3, None).unwrap()), [1]);
    assert_eq!(keys(&index.search("東京", 3, None).unwrap()), [1]);
    let huge = "pump ".repeat(200_000);
    assert_eq!(keys(&index.search(&huge, 3, None).unwrap()), [1]);
    let many: String = (0..50_000).map(|n| format!("word{n} ")).collect();
    assert!(index.search(&many, 3, None).unwrap().is_empty());
    assert!(index.search("pump", 0, None).unwrap().is_empty());
    assert_eq!(index.search("pump", usize::MAX, None).unwrap().len(), 1);
}

fn saved(directory: &Path) -> PathBuf {
    let path = directory.join("keyword");
    let mut index = KeywordIndex::create(&path).unwrap();
    index.update(&[], (0..40).map(|key| (key, Random(key).text(20)))).unwrap();
    index.update(&[3, 4], [(50, "the quay")]).unwrap();
    path
}

/// Flips, truncations and losses anywhere: an error or the same index, no panic.
#[test]
fn damage_is_found_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path());
    let whole = KeywordIndex::open(&path).unwrap().search("pump quay", 50, None).unwrap();
    let mut random = Random(3);
    let files: Vec<PathBuf> = fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect();
    for file in files {
        let good = fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".lock") {
            continue;
        }
        for _ in 0..20 {
            let mut bad = good.clone();
            match random.below(3) {
                0 => bad.truncate(random.below(good.len() as u64) as usize),
                _ => bad[random.below(good.len() as u64) as usize] ^= 1 << random.below(8),
            }
            fs::write(&file, bad).unwrap();
            // A changed blank or name in the seal may not matter; everything else must.
            if let Ok(index) = KeywordIndex::open(&path) {
                assert_eq!(name, "seal.json");
                assert_eq!(index.search("pump quay", 50, None).unwrap(), whole);
            }
        }
        fs::remove_file(&file).unwrap();
        assert!(KeywordIndex::open(&path).is_err(), "{name} is missing");
        fs::write(&file, good).unwrap();
    }
    assert_eq!(KeywordIndex::open(&path).unwrap().search("pump quay", 50, None).unwrap(), whole);
}

/// A seal that fits damaged files still leads to no panic, and to nothing outside the directory.
#[test]
fn a_forged_seal_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path());
    let treasure = directory.path().join("treasure");
    fs::write(&treasure, "gold").unwrap();
    let managed = path.join(".managed.json");
    let good = fs::read_to_string(&managed).unwrap();
    for name in ["../treasure", treasure.to_str().unwrap(), "a/../../treasure"] {
        let mut names: Vec<String> = serde_json::from_str(&good).unwrap();
        names.push(name.to_owned());
        fs::write(&managed, serde_json::to_string(&names).unwrap()).unwrap();
        reseal(&path);
        assert!(matches!(KeywordIndex::open(&path), Err(Error::Malformed { .. })), "{name}");
        assert!(treasure.exists());
    }
    fs::write(&managed, &good).unwrap();

    let mut random = Random(4);
    for file in fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()) {
        let good = fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("seal") || name.ends_with(".lock") || name == ".managed.json" {
            continue;
        }
        for _ in 0..20 {
            let mut bad = good.clone();
            bad[random.below(good.len() as u64) as usize] ^= 1 << random.below(8);
            fs::write(&file, bad).unwrap();
            reseal(&path);
            if let Ok(index) = KeywordIndex::open(&path) {
                drop(index.search("pump quay", 50, None));
                drop(index.keys());
            }
        }
        fs::write(&file, good).unwrap();
    }
}

/// Writes checksums that fit the files as they are.
fn reseal(path: &Path) {
    use sha2::{Digest, Sha256};
    let seal = path.join("seal.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&seal).unwrap()).unwrap();
    for (name, entry) in json["files"].as_object_mut().unwrap() {
        let bytes = fs::read(path.join(name)).unwrap();
        let sha256: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        *entry = serde_json::json!({"bytes": bytes.len(), "sha256": sha256});
    }
    fs::write(&seal, json.to_string()).unwrap();
}

#[test]
fn other_versions_and_rules_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path());
    let seal = path.join("seal.json");
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&seal).unwrap()).unwrap();
    let set = |field: &str, value: serde_json::Value| {
        let mut seal_of = good.clone();
        seal_of[field] = value;
        fs::write(&seal, seal_of.to_string()).unwrap();
    };
    set("version", 2.into());
    assert!(matches!(KeywordIndex::open(&path), Err(Error::FormatVersion { found: 2, .. })));
    set("analyzer", "letters".into());
    assert!(matches!(KeywordIndex::open(&path), Err(Error::Analyzer { found, .. }) if found == "letters"));
    assert!(matches!(KeywordIndex::open(directory.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn creating_keeps_what_is_no_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path());
    fs::write(path.join("diary.txt"), "private").unwrap();
    assert!(matches!(KeywordIndex::create(&path), Err(Error::Malformed { .. })));
    assert!(path.join("diary.txt").exists());
    fs::remove_file(path.join("diary.txt")).unwrap();
    assert!(KeywordIndex::create(&path).unwrap().is_empty());
    assert!(KeywordIndex::open(&path).unwrap().is_empty());
}
