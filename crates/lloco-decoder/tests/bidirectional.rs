//! Attention in both directions: each position sees its whole sequence.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::decoder;
use lloco_decoder::{
    Error, KvCache, Packing, Pass,
    burn::tensor::{Tensor, s},
};

fn worst(a: &Tensor<3>, b: &Tensor<3>) -> f32 {
    let values = |x: &Tensor<3>| x.clone().into_data().try_to_vec::<f32>().unwrap();
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn both() -> Pass<'static> {
    Pass::new().bidirectional(true)
}

#[test]
fn the_first_token_sees_the_last_and_causally_it_does_not() {
    let decoder = decoder();
    for length in [2, 9, 130] {
        let ids: Vec<u32> = (0..length).map(|i| i * 7 % 51).collect();
        let mut other = ids.clone();
        *other.last_mut().unwrap() += 1;
        let first = |ids: &[u32], pass: Pass<'_>| {
            decoder.forward(decoder.embed(ids).unwrap(), pass).unwrap().slice(s![.., 0..1, ..])
        };
        assert!(worst(&first(&ids, both()), &first(&other, both())) > 1e-4, "{length}");
        assert!(worst(&first(&ids, both().layers(1)), &first(&other, both().layers(1))) > 1e-4, "{length}");
        assert_eq!(worst(&first(&ids, Pass::new()), &first(&other, Pass::new())), 0.0, "{length}");
    }
    // Alone, a token sees the same either way.
    let one = |pass| decoder.forward(decoder.embed(&[3]).unwrap(), pass).unwrap();
    assert_eq!(worst(&one(both()), &one(Pass::new())), 0.0);
}

#[test]
fn a_batch_is_its_sequences_and_the_newest_rows_are_those_of_all() {
    let decoder = decoder();
    let rows = |seed: u32| decoder.embed(&(0..70).map(|i| (i * 7 + seed * 13) % 51).collect::<Vec<_>>()).unwrap();
    let batch = decoder.forward(Tensor::cat((0..3).map(rows).collect(), 0), both()).unwrap();
    for (index, seed) in (0..3).enumerate() {
        let alone = decoder.forward(rows(seed), both()).unwrap();
        assert!(worst(&batch.clone().slice(s![index..index + 1, .., ..]), &alone) < 1e-5);
        let newest = decoder.forward(rows(seed), both().last_rows(5)).unwrap();
        assert!(worst(&newest, &alone.slice(s![.., 65.., ..])) < 1e-5);
    }
}

#[test]
fn what_reads_in_one_direction_is_refused() {
    let decoder = decoder();
    let mut cache = KvCache::new(&decoder, 1, 8);
    let mut packing = Packing::new();
    packing.tree(4, &[]);
    for pass in [both().cache(&mut cache), both().padding(&[1]), both().packing(&packing)] {
        let found = decoder.forward(decoder.embed(&[1, 2, 3, 4]).unwrap(), pass);
        assert!(matches!(&found, Err(Error::Mismatch { what, .. }) if what.contains("both directions")), "{found:?}");
    }
}
