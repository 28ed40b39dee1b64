//! Weights and embeddings that are no numbers, or not finite.

use std::{fs, path::Path};

use lloco_decoder::{
    Checkpoint, Decoder, Error, GenerateConfig, NoAdapter, Pass, Prompt, Sampling, WeightType,
    burn::tensor::{Device, Tensor},
};

use super::{ALL, load, odd, text, texts, values};

/// A copy of a tiny checkpoint whose query weights of layer 1 begin with `number`.
fn with_number(number: f32) -> tempfile::TempDir {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens/smollm-gqa-tied");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut bytes = fs::read(golden.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let entry = &entries["model.layers.1.self_attn.q_proj.weight"];
    assert_eq!(entry["dtype"], "F32");
    let at = 8 + header + entry["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

#[test]
fn numbers_that_are_none_stay_or_are_refused() {
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = with_number(number);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        for weights in [WeightType::Int8, WeightType::Q4] {
            match Decoder::load(&checkpoint, weights, &Device::flex()) {
                Err(Error::Malformed { detail, .. }) => {
                    assert!(detail.contains("layers.1.self_attn.q_proj"), "{detail}")
                }
                other => panic!("{weights:?} {number}: {other:?}"),
            }
        }
        for weights in [WeightType::Auto, WeightType::F32, WeightType::Bf16] {
            let decoder = load(&checkpoint, weights);
            for ids in texts() {
                let hidden = values(decoder.forward(decoder.embed(&ids).unwrap(), Pass::new()).unwrap());
                let rows = hidden.chunks_exact(decoder.config().hidden_size);
                assert_eq!(
                    rows.filter(|row| row.iter().any(|x| x.is_nan())).count(),
                    ids.len(),
                    "{weights:?} {number}"
                );
            }
        }
    }
}

/// Greedy, and drawn with and without a cut.
fn ways() -> [GenerateConfig; 3] {
    let drawn = Sampling::temperature(0.8, 1);
    [Sampling::greedy(), drawn.clone(), drawn.with_top_k(5)].map(|how| GenerateConfig::greedy(4).with_sampling(how))
}

#[test]
fn nothing_is_generated_from_scores_that_are_no_numbers() {
    for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dir = with_number(number);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        for (weights, ids) in [WeightType::F32, WeightType::Bf16].into_iter().flat_map(|w| texts().map(|ids| (w, ids)))
        {
            let decoder = load(&checkpoint, weights);
            let prompt = Prompt::new().text(&ids);
            for config in ways() {
                let mut generation = decoder.generate(&prompt, &config, NoAdapter).unwrap();
                let found = generation.next();
                assert!(matches!(found, Some(Err(Error::NoScores { position: 0 }))), "{weights:?} {number}: {found:?}");
                assert!(generation.next().is_none());
                let found = decoder.generate_batch(&[prompt.clone(), Prompt::new().text(&[1])], &config, &NoAdapter);
                assert!(matches!(found, Err(Error::NoScores { position: 0 })), "{weights:?} {number}: {found:?}");
            }
        }
    }
}

#[test]
fn embeddings_that_are_no_numbers_are_not_answered() {
    let checkpoint = odd();
    for weights in ALL {
        let decoder = load(&checkpoint, weights);
        for rows in [1, 40] {
            let bad = Tensor::<2>::full([rows, 44], f32::NAN, &Device::flex());
            let prompts = [Prompt::new().text(&text(30)), Prompt::new().embeddings(bad).text(&[7])];
            for config in ways() {
                let tokens: Vec<_> = decoder.generate(&prompts[0], &config, NoAdapter).unwrap().collect();
                assert!(tokens.len() == 4 && tokens.iter().all(Result::is_ok), "{weights:?}: {tokens:?}");
                let tokens: Vec<_> = decoder.generate(&prompts[1], &config, NoAdapter).unwrap().collect();
                assert!(matches!(tokens[..], [Err(Error::NoScores { position: 0 })]), "{weights:?}: {tokens:?}");
                let found = decoder.generate_batch(&prompts, &config, &NoAdapter);
                assert!(matches!(found, Err(Error::NoScores { position: 0 })), "{weights:?}: {found:?}");
            }
        }
    }
}
