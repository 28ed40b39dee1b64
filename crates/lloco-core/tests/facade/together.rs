//! Short documents that are compressed together, with an encoder whose segments know nothing of each other.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use lloco_core::{
    Error, Event, Lloco, LlocoBuilder,
    store::{NewDocument, Store},
};
use lloco_decoder::{Checkpoint, Decoder, WeightType, burn::tensor::Device};
use lloco_encoder::{Compressor, Mode, PooledConfig, Reader};
use lloco_lora::{LoraConfig, StoredType};

use crate::{Fixture, MANUAL, MEETING};

const SEGMENT: usize = 16;

/// A compressor directory for the fixture's model.
fn compressor(fixture: &Fixture) -> PathBuf {
    let dir = fixture.path().join("compressor");
    if !dir.exists() {
        let checkpoint = Checkpoint::open(fixture.path().join("model")).unwrap();
        let decoder = Decoder::load(&checkpoint, WeightType::F32, &Device::flex()).unwrap();
        let config = PooledConfig { segment_length: SEGMENT, ratios: vec![4], layers: None, bidirectional: false };
        let lora = LoraConfig::default().with_rank(2, 4.0).with_all_linear();
        Compressor::init(Mode::Pooled(config), lora, Reader::Base, &decoder, checkpoint.fingerprint(), 1)
            .unwrap()
            .save(&dir, StoredType::F16, &[])
            .unwrap();
    }
    dir
}

fn builder(fixture: &Fixture) -> LlocoBuilder {
    fixture.builder().encoder(Default::default()).compressor(compressor(fixture))
}

fn summaries(lloco: &Lloco, texts: &[(String, String)]) -> Vec<Vec<f32>> {
    let summary = |(id, _): &(String, String)| lloco.store().summary(id, lloco.encoder_info()).unwrap();
    texts.iter().map(|text| summary(text).data().to_vec()).collect()
}

/// Two texts of a few lines, one that shares its beginning with the first, one word, and one that is too long to go
/// with others.
fn texts() -> Vec<(String, String)> {
    let long: String = (0..300).map(|i| format!("Item {i} is number {}. ", i * i)).collect();
    let shared = MEETING[..5 * SEGMENT].to_owned() + "Nothing else was said.";
    let texts = [MEETING.to_owned(), MANUAL.to_owned(), shared, "Yes".to_owned(), long];
    texts.into_iter().enumerate().map(|(i, text)| (format!("text-{i}"), text)).collect()
}

fn new(texts: &[(String, String)]) -> Vec<NewDocument<'_>> {
    texts.iter().map(|(id, text)| NewDocument::new(id, text).group("all")).collect()
}

#[test]
fn documents_added_together_are_stored_as_one_by_one() {
    let (together, apart, texts) = (Fixture::new(), Fixture::new(), texts());
    let told = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&told);
    let lloco = builder(&together)
        .on_event(move |event| {
            if let Event::Compressed { document, done, total } = *event {
                observed.lock().unwrap().push((document.to_owned(), done, total));
            }
            ControlFlow::Continue(())
        })
        .build()
        .unwrap();
    assert!(lloco.encoder().at_once() * SEGMENT < texts[4].1.len());
    let added = lloco.add(&new(&texts)).unwrap();
    let tokens: u64 = texts.iter().map(|(_, text)| text.len() as u64).sum();
    assert_eq!((added.documents, added.tokens), (5, tokens));
    assert_eq!(added.tokens_read, tokens - 5 * SEGMENT as u64, "the shared beginning is read once");

    let told = told.lock().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].1 < pair[1].1), "{told:?}");
    assert_eq!(told.last().map(|(_, done, total)| (*done, *total)), Some((tokens, tokens)));

    let one_by_one = builder(&apart).build().unwrap();
    for document in new(&texts) {
        one_by_one.add(&[document]).unwrap();
    }
    for (found, wanted) in summaries(&lloco, &texts).iter().zip(summaries(&one_by_one, &texts)) {
        assert_eq!(found.len(), wanted.len());
        let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{worst}: more than rounding to half precision");
    }
}

#[test]
fn what_was_stored_before_a_stop_is_not_read_again() {
    let (fixture, texts) = (Fixture::new(), texts());
    let stopping = builder(&fixture).on_event(|event| match event {
        Event::Compressed { document: "text-4", .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let stopping = stopping.build().unwrap();
    assert!(matches!(stopping.add(&new(&texts)), Err(Error::Interrupted)));
    drop(stopping);
    let lloco = builder(&fixture).build().unwrap();
    let kept = (lloco.encoder().at_once() * SEGMENT) as u64;
    let added = lloco.add(&new(&texts)).unwrap();
    assert_eq!((added.documents, added.unchanged), (1, 4));
    assert_eq!(added.tokens_read, texts[4].1.len() as u64 - kept, "the segments before the stop were stored");
}

#[test]
fn a_stop_among_short_documents_leaves_the_rest_for_later() {
    let fixture = Fixture::new();
    let stopping = builder(&fixture).on_event(|event| match event {
        Event::Compressed { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    // Each nearly fills a pass, so that all of them are many.
    let texts: Vec<(String, String)> =
        (0..40).map(|i| (format!("{i:02}"), format!("Report {i}. ").repeat(90))).collect();
    let stopping = stopping.build().unwrap();
    assert!(matches!(stopping.add(&new(&texts)), Err(Error::Interrupted)));
    let compressed = |(id, _): &&(String, String)| stopping.store().document(id).unwrap().unwrap().summary.is_some();
    let stored = texts.iter().filter(compressed).count();
    assert!((1..texts.len()).contains(&stored), "{stored} were stored");
}

#[test]
fn a_text_without_tokens_leaves_the_others_alone() {
    let fixture = Fixture::new();
    let lloco = builder(&fixture).build().unwrap();
    let found = lloco.add(&[NewDocument::new("a", MEETING), NewDocument::new("b", "")]);
    assert!(matches!(found, Err(Error::EmptyText { .. })));
    assert_eq!(lloco.store().documents(None).unwrap().len(), 0);
}
