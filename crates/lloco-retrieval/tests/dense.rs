//! The dense index: exact, whatever was added, removed, saved and appended.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::dot;
use lloco_retrieval::{DenseIndex, Embeddings, Error, Hit, RowType};
use std::collections::BTreeMap;

const DIM: usize = 24;

/// Numbers that look random and are always the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 ^ (self.0 >> 29)) >> 16
    }

    fn vector(&mut self) -> Vec<f32> {
        let number = |_| (self.next() % 2001) as f32 / 1000.0 - 1.0;
        (0..DIM).map(number).collect()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn matrix(rows: &[Vec<f32>]) -> Embeddings {
    Embeddings::new(DIM, rows.concat()).unwrap()
}

fn index(row_type: RowType) -> DenseIndex {
    DenseIndex::new(DIM, "fingerprint", row_type).unwrap()
}

/// The same search by the definition: in f64, over everything.
fn expected(rows: &BTreeMap<u64, Vec<f32>>, query: &[f32], k: usize) -> Vec<u64> {
    let mut scored: Vec<(f64, u64)> = rows
        .iter()
        .map(|(&key, row)| {
            let products = row.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b));
            (products.sum(), key)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.into_iter().take(k).map(|(_, key)| key).collect()
}

fn keys(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.key).collect()
}

#[test]
fn finds_what_the_definition_finds() {
    let mut random = Random(1);
    let rows: BTreeMap<u64, Vec<f32>> = (0..5000).map(|key| (key * 3, random.vector())).collect();
    let mut index = index(RowType::F32);
    let all: Vec<_> = rows.values().cloned().collect();
    let all_keys: Vec<_> = rows.keys().copied().collect();
    index.add(&all_keys, &matrix(&all)).unwrap();
    let queries: Vec<_> = (0..9).map(|_| random.vector()).collect();
    let batch = index.search_batch(&matrix(&queries), 10, None).unwrap();
    for (query, hits) in queries.iter().zip(batch) {
        let wanted = expected(&rows, query, 10);
        assert_eq!(keys(&hits), wanted);
        let single = index.search(query, 10).unwrap();
        assert_eq!(keys(&single), wanted);
        for (hit, batched) in single.iter().zip(&hits) {
            assert!((hit.score - dot(&rows[&hit.key], query)).abs() < 1e-5);
            assert!((hit.score - batched.score).abs() < 1e-5);
        }
    }
}

#[test]
fn half_precision_rows_keep_scores_to_their_precision() {
    let mut random = Random(2);
    let rows: Vec<_> = (0..500).map(|_| random.vector()).collect();
    let mut index = index(RowType::F16);
    index.add(&(0..500).collect::<Vec<_>>(), &matrix(&rows)).unwrap();
    let query = random.vector();
    let hits = index.search(&query, 500).unwrap();
    assert_eq!(hits.len(), 500);
    for hit in &hits {
        assert!((hit.score - dot(&rows[hit.key as usize], &query)).abs() < 5e-3);
    }
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
}

#[test]
fn rows_of_eight_bits_keep_scores_to_their_precision() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut random = Random(8);
    let rows: Vec<_> = (0..500).map(|_| random.vector()).collect();
    let mut index = index(RowType::I8);
    index.add(&(0..400).collect::<Vec<_>>(), &matrix(&rows[..400])).unwrap();
    index.save(&path).unwrap();
    index.add(&(400..500).collect::<Vec<_>>(), &matrix(&rows[400..])).unwrap();
    index.remove(&[7, 450]);
    index.commit().unwrap();
    let queries: Vec<_> = (0..4).map(|_| random.vector()).collect();
    let check = |index: &DenseIndex| {
        let batch = index.search_batch(&matrix(&queries), 500, None).unwrap();
        for (query, batch) in queries.iter().zip(batch) {
            let hits = index.search(query, 500).unwrap();
            assert_eq!((hits.len(), batch.len()), (498, 498));
            let length = dot(query, query).sqrt();
            for (hit, wanted) in hits.iter().map(|hit| (hit, dot(&rows[hit.key as usize], query))) {
                assert!((hit.score - wanted).abs() < 0.01 * length * (DIM as f32).sqrt(), "{} {wanted}", hit.score);
            }
            let mut batch = batch;
            batch.sort_by_key(|hit| hit.key);
            let mut hits = hits;
            hits.sort_by_key(|hit| hit.key);
            for (single, batched) in hits.iter().zip(&batch) {
                assert!((single.score - batched.score).abs() < 2e-3 * length, "{single:?} {batched:?}");
            }
        }
    };
    check(&index);
    index.save(&path).unwrap();
    let index = DenseIndex::open(&path, "fingerprint").unwrap();
    index.verify().unwrap();
    assert_eq!(index.row_type(), RowType::I8);
    check(&index);
}

#[test]
fn a_filter_hides_keys() {
    let mut random = Random(3);
    let rows: BTreeMap<u64, Vec<f32>> = (0..400).map(|key| (key, random.vector())).collect();
    let mut index = index(RowType::F32);
    index.add(&(0..400).collect::<Vec<_>>(), &matrix(&rows.values().cloned().collect::<Vec<_>>())).unwrap();
    let query = random.vector();
    let odd = |key: u64| key % 2 == 1;
    let some: BTreeMap<_, _> = rows.into_iter().filter(|(key, _)| odd(*key)).collect();
    let hits = index.search_filtered(&query, 7, Some(&odd)).unwrap();
    assert_eq!(keys(&hits), expected(&some, &query, 7));
    assert!(index.search_filtered(&query, 7, Some(&|_| false)).unwrap().is_empty());
}

/// A long walk of every operation, compared with a map after each step.
#[test]
fn the_nearest_are_among_those_with_like_signs() {
    let mut random = Random(8);
    // Rows around centres, as texts lie around topics.
    let centres: Vec<Vec<f32>> = (0..50).map(|_| random.vector()).collect();
    let row = |random: &mut Random| -> Vec<f32> {
        let centre = &centres[random.below(50) as usize];
        centre.iter().zip(random.vector()).map(|(a, b)| a + 0.4 * b).collect()
    };
    let rows: Vec<Vec<f32>> = (0..20_000).map(|_| row(&mut random)).collect();
    let queries: Vec<Vec<f32>> = (0..40).map(|_| row(&mut random)).collect();
    let directory = tempfile::tempdir().unwrap();
    for row_type in [RowType::F32, RowType::F16, RowType::I8] {
        let mut index = index(row_type);
        let all: Vec<u64> = (0..rows.len() as u64).collect();
        index.add(&all[..9_000], &matrix(&rows[..9_000])).unwrap();
        index.save(directory.path().join("dense.index")).unwrap();
        let near =
            |index: &DenseIndex, query: &[f32], candidates| index.search_near(query, 10, candidates, None).unwrap();
        assert_eq!(near(&index, &queries[0], 9_000), index.search(&queries[0], 10).unwrap());
        // Signs that were made before know what comes later.
        index.add(&all[9_000..], &matrix(&rows[9_000..])).unwrap();
        index.remove(&all[5..9]);
        index.commit().unwrap();
        let (mut found, mut few) = (0, 0);
        for query in &queries {
            let exact = index.search(query, 10).unwrap();
            assert_eq!(near(&index, query, 20_000), exact);
            let common = |hits: Vec<Hit>| hits.iter().filter(|hit| exact.contains(hit)).count();
            found += common(near(&index, query, 2_000));
            few += common(near(&index, query, 100));
            // Of a filtered tenth all are looked at, if so many are asked for.
            let tenth = |key: u64| key % 10 == 3;
            let filtered = index.search_near(query, 10, 2_000, Some(&tenth)).unwrap();
            assert_eq!(filtered, index.search_filtered(query, 10, Some(&tenth)).unwrap());
        }
        assert!(found > few && found >= 380, "{row_type:?}: {found} and {few} of 400");
    }
}

#[test]
fn near_search_of_little() {
    let mut empty = index(RowType::F16);
    let query = vec![1.0; DIM];
    assert!(empty.search_near(&query, 3, 10, None).unwrap().is_empty());
    empty.add(&[4, 5], &matrix(&[vec![0.0; DIM], vec![1.0; DIM]])).unwrap();
    assert_eq!(keys(&empty.search_near(&query, 3, 0, None).unwrap()), [5, 4]);
    assert!(empty.search_near(&query, 0, 10, None).unwrap().is_empty());
    assert!(empty.search_near(&query, 3, 10, Some(&|_| false)).unwrap().is_empty());
    assert!(empty.search_near(&query[1..], 3, 10, None).is_err());
    assert!(empty.search_near(&[f32::NAN; DIM], 3, 10, None).is_err());
    empty.remove(&[4, 5]);
    assert!(empty.search_near(&query, 3, 10, None).unwrap().is_empty());
}

#[test]
fn any_history_equals_the_map_it_describes() {
    for row_type in [RowType::F16, RowType::F32] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let mut random = Random(4);
        let mut rows = BTreeMap::new();
        let mut index = index(row_type);
        index.save(&path).unwrap();
        for step in 0..120 {
            match random.below(6) {
                0..=2 => {
                    let count = random.below(40) as usize;
                    let new: Vec<_> = (0..count)
                        .map(|_| {
                            // Numbers that f16 holds exactly, so that scores agree in both types.
                            let exact = |v: f32| (v * 8.0).round() / 8.0;
                            random.vector().into_iter().map(exact).collect::<Vec<_>>()
                        })
                        .collect();
                    let new_keys: Vec<_> = (0..count).map(|_| random.below(300)).collect();
                    index.add(&new_keys, &matrix(&new)).unwrap();
                    rows.extend(new_keys.into_iter().zip(new));
                }
                3 => {
                    let gone: Vec<_> = (0..random.below(30)).map(|_| random.below(300)).collect();
                    let before = rows.len();
                    rows.retain(|key, _| !gone.contains(key));
                    assert_eq!(index.remove(&gone), before - rows.len());
                }
                4 => index.commit().unwrap(),
                _ if step % 3 == 0 => index.save(&path).unwrap(),
                _ => {
                    index.commit().unwrap();
                    index = DenseIndex::open(&path, "fingerprint").unwrap();
                    index.verify().unwrap();
                }
            }
            assert_eq!(index.len(), rows.len());
            let mut found: Vec<_> = index.keys().collect();
            found.sort_unstable();
            assert_eq!(found, rows.keys().copied().collect::<Vec<_>>());
            let query: Vec<_> = random.vector().into_iter().map(|v| (v * 4.0).round()).collect();
            assert_eq!(keys(&index.search(&query, 5).unwrap()), expected(&rows, &query, 5));
        }
    }
}

#[test]
fn a_file_of_many_pieces_or_much_waste_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut random = Random(9);
    let mut index = index(RowType::F16);
    index.save(&path).unwrap();
    let size = || std::fs::metadata(&path).unwrap().len();
    for key in 0..300 {
        index.add(&[key], &matrix(&[random.vector()])).unwrap();
        index.commit().unwrap();
    }
    assert_eq!(index.len(), 300);
    let many: Vec<_> = (0..3000).collect();
    index.add(&many, &matrix(&many.iter().map(|_| random.vector()).collect::<Vec<_>>())).unwrap();
    index.commit().unwrap();
    let before = size();
    index.remove(&many[..2500]);
    index.commit().unwrap();
    assert!(size() < before / 4, "{} of {before}", size());
    assert_eq!(index.keys().collect::<Vec<_>>(), many[2500..]);
    index.verify().unwrap();
}

#[test]
fn what_was_not_committed_is_not_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut random = Random(5);
    let mut index = index(RowType::F16);
    index.add(&[1], &matrix(&[random.vector()])).unwrap();
    index.save(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    index.add(&[2], &matrix(&[random.vector()])).unwrap();
    assert_eq!(DenseIndex::open(&path, "fingerprint").unwrap().len(), 1);
    index.commit().unwrap();
    assert_eq!(DenseIndex::open(&path, "fingerprint").unwrap().len(), 2);

    // A crash between the block and the header leaves the block without effect.
    let mut torn = std::fs::read(&path).unwrap();
    torn[..128].copy_from_slice(&before[..128]);
    std::fs::write(&path, torn).unwrap();
    let mut index = DenseIndex::open(&path, "fingerprint").unwrap();
    index.verify().unwrap();
    assert_eq!(index.keys().collect::<Vec<_>>(), [1]);
    index.add(&[3], &matrix(&[random.vector()])).unwrap();
    index.commit().unwrap();
    assert_eq!(index.keys().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_reader_keeps_what_it_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut random = Random(6);
    let mut writer = index(RowType::F16);
    writer.add(&[1], &matrix(&[random.vector()])).unwrap();
    writer.save(&path).unwrap();
    let mut reader = DenseIndex::open(&path, "fingerprint").unwrap();
    writer.add(&[2], &matrix(&[random.vector()])).unwrap();
    writer.commit().unwrap();
    assert_eq!(reader.search(&random.vector(), 9).unwrap().len(), 1);
    writer.save(&path).unwrap();
    assert_eq!(reader.search(&random.vector(), 9).unwrap().len(), 1);
    reader.remove(&[1]);
    assert!(matches!(reader.commit(), Err(Error::Changed { .. })));
}

#[test]
fn another_embedders_index_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    index(RowType::F16).save(&path).unwrap();
    let error = DenseIndex::open(&path, "other").err().unwrap();
    assert!(matches!(&error, Error::Fingerprint { found, .. } if found == "fingerprint"));
}

#[test]
fn wrong_vectors_are_refused_and_nothing_changes() {
    let mut index = index(RowType::F16);
    let good = matrix(&[vec![0.5; DIM]]);
    index.add(&[1], &good).unwrap();
    assert!(matches!(index.add(&[2, 3], &good), Err(Error::KeyCount { keys: 2, rows: 1 })));
    let short = Embeddings::new(3, vec![0.0; 3]).unwrap();
    assert!(matches!(index.add(&[2], &short), Err(Error::Dimension { expected: DIM, found: 3 })));
    for bad in [f32::NAN, f32::INFINITY, 70_000.0] {
        let mut row = vec![0.5; DIM];
        row[5] = bad;
        let error = index.add(&[2, 3], &matrix(&[vec![0.5; DIM], row])).unwrap_err();
        assert!(matches!(error, Error::NotFinite { row: 1, dimension: 5, .. }));
    }
    assert_eq!(index.len(), 1);
    assert!(matches!(index.search(&[], 3), Err(Error::Dimension { found: 0, .. })));
    assert!(matches!(index.search(&[f32::NAN; DIM], 3), Err(Error::NotFinite { .. })));
    assert!(matches!(index.commit(), Err(Error::NotSaved)));
    assert!(matches!(index.verify(), Err(Error::NotSaved)));
    assert!(DenseIndex::new(0, "f", RowType::F16).is_err());
    assert!(DenseIndex::new(3, &"f".repeat(65), RowType::F16).is_err());
}

#[test]
fn failing_to_save_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("occupied"), "x").unwrap();
    assert!(matches!(index(RowType::F16).save(&path), Err(Error::Io { .. })));
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays");
    assert!(index(RowType::F16).save(directory.path().join("no/such/index")).is_err());
}

/// Every truncation and thousands of flipped bytes: an error or a working index, no panic.
#[test]
fn hostile_bytes_give_errors() {
    [RowType::F16, RowType::I8].into_iter().for_each(hostile_bytes);
}

fn hostile_bytes(row_type: RowType) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut random = Random(7);
    let mut index = index(row_type);
    index.add(&[1, 2, 3], &matrix(&[random.vector(), random.vector(), random.vector()])).unwrap();
    index.save(&path).unwrap();
    index.add(&[4], &matrix(&[random.vector()])).unwrap();
    index.remove(&[2]);
    index.commit().unwrap();
    let good = std::fs::read(&path).unwrap();

    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        let error = DenseIndex::open(&path, "fingerprint").err().unwrap();
        assert!(
            matches!(error, Error::Damaged { .. } | Error::Malformed { .. } | Error::Io { .. }),
            "{length}: {error}"
        );
    }
    for _ in 0..4000 {
        let mut bad = good.clone();
        let place = random.below(good.len() as u64) as usize;
        bad[place] ^= 1 << random.below(8);
        std::fs::write(&path, &bad).unwrap();
        if let Ok(index) = DenseIndex::open(&path, "fingerprint") {
            let damaged = index.verify().is_err();
            let padding_or_block_header = place >= 128;
            assert!(damaged || padding_or_block_header, "byte {place}");
            for hit in index.search(&[1.0; DIM], 10).unwrap() {
                assert!(!hit.score.is_nan());
            }
        }
    }
    let mut future = good;
    future[8] = 3;
    std::fs::write(&path, future).unwrap();
    let error = DenseIndex::open(&path, "fingerprint").err().unwrap();
    assert!(matches!(error, Error::FormatVersion { found: 3, supported: 2, .. }));
}
