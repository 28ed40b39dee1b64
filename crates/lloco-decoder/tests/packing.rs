//! Packed sequences: each branch of each tree is what it would be alone.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::decoder;
use lloco_decoder::{
    Error, KvCache, Packing, Pass,
    burn::tensor::{Tensor, s},
};

fn values(x: Tensor<3>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn ids(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 7 + seed * 13 + 3) % 51).collect()
}

#[test]
fn every_branch_is_what_it_is_alone() {
    let decoder = decoder();
    // A trunk with three branches, one of them empty; a sequence alone; branches without a trunk.
    let trees = [(20, vec![5, 0, 70]), (9, vec![]), (0, vec![4, 6])];
    let (mut packing, mut rows, mut alone) = (Packing::new(), Vec::new(), Vec::new());
    for (seed, (trunk, branches)) in (0..).step_by(10).zip(&trees) {
        let places = packing.tree(*trunk, branches);
        let start = ids(*trunk, seed);
        rows.extend(&start);
        if *trunk > 0 {
            alone.push((places[0].clone(), start.clone(), 0));
        }
        for (seed, (len, place)) in (seed + 1..).zip(branches.iter().zip(&places[1..])) {
            rows.extend(ids(*len, seed));
            alone.push((place.clone(), [start.clone(), ids(*len, seed)].concat(), *trunk));
        }
    }
    assert_eq!(packing.rows(), rows.len());
    let packed = decoder.forward(decoder.embed(&rows).unwrap(), Pass::new().packing(&packing)).unwrap();
    for (place, ids, skip) in alone.into_iter().filter(|(place, ..)| !place.is_empty()) {
        let wanted = decoder.forward(decoder.embed(&ids).unwrap(), Pass::new()).unwrap();
        let found = values(packed.clone().slice(s![.., place.clone(), ..]));
        for (found, wanted) in found.iter().zip(values(wanted.slice(s![.., skip.., ..]))) {
            assert!((found - wanted).abs() < 1e-4, "rows {place:?}: {found}, alone {wanted}");
        }
    }
}

#[test]
fn what_does_not_go_with_a_packing_is_refused() {
    let decoder = decoder();
    let mut packing = Packing::new();
    packing.tree(3, &[2]);
    let input = |rows| decoder.embed(&ids(rows, 1)).unwrap();
    let mut cache = KvCache::new(&decoder, 1, 8);
    let refused = [
        decoder.forward(input(6), Pass::new().packing(&packing)),
        decoder.forward(input(5), Pass::new().packing(&packing).last_rows(2)),
        decoder.forward(input(5), Pass::new().packing(&packing).padding(&[1])),
        decoder.forward(input(5), Pass::new().packing(&packing).cache(&mut cache)),
        decoder.forward(input(5).repeat_dim(0, 2), Pass::new().packing(&packing)),
    ];
    assert!(refused.into_iter().all(|result| matches!(result, Err(Error::Mismatch { .. }))));
    assert_eq!(cache.len(), 0);
}
