//! Properties of adapters, alone and in batches.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{fs, sync::Arc};

use common::{busy_adapter, distance, examples, goldens, logits, noise, tiny_config, tiny_decoder, to_vec};
use lloco_decoder::{
    Checkpoint, Decoder, LinearAdapter, NoAdapter, Projection, Site, WeightType,
    burn::tensor::{Device, Tolerance, s},
};
use lloco_lora::{Adapter, AdapterBatch, Error, LoraConfig, Targets, evaluate};
use safetensors::{SafeTensors, tensor::TensorView};

#[test]
fn a_new_adapter_changes_nothing_and_follows_its_seed() {
    let decoder = tiny_decoder();
    let init =
        |seed| Adapter::init(&LoraConfig::default().with_all_linear(), &tiny_config(), seed, &Device::flex()).unwrap();
    let input = noise([2, 5, 32], 1);
    assert_eq!(logits(&decoder, input.clone(), &init(1)), logits(&decoder, input, &NoAdapter));
    let a = |adapter: Adapter| to_vec(adapter.parameters()["model.layers.1.mlp.down_proj.lora_A.weight"].clone());
    assert_eq!(a(init(1)), a(init(1)));
    assert_ne!(a(init(1)), a(init(2)));
    let bound = 1.0 / 48f32.sqrt();
    assert!(common::largest(&a(init(1))) <= bound && common::largest(&a(init(1))) > 0.9 * bound);
}

#[test]
fn merged_equals_factored() {
    for golden in goldens() {
        let adapter = golden.adapter();
        // The model's own weights plus B A, as a checkpoint.
        let bytes = fs::read(golden.folder.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut merged: Vec<(String, Vec<usize>, Vec<u8>)> =
            file.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec())).collect();
        for site in adapter.sites() {
            let name = format!("{}.weight", site.path());
            let (_, _, data) = merged.iter_mut().find(|(found, _, _)| *found == name).unwrap();
            let delta = to_vec(adapter.merged_delta(site).unwrap());
            for (bytes, delta) in data.as_chunks_mut::<4>().0.iter_mut().zip(delta) {
                *bytes = (f32::from_le_bytes(*bytes) + delta).to_le_bytes();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::copy(golden.folder.join("config.json"), dir.path().join("config.json")).unwrap();
        let views = merged
            .iter()
            .map(|(name, shape, data)| (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap()));
        safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
        let decoder = Decoder::load(&Checkpoint::open(dir.path()).unwrap(), WeightType::F32, &Device::flex()).unwrap();
        let input = noise([1, 9, golden.decoder.config().hidden_size], 4);
        let factored = logits(&golden.decoder, input.clone(), &adapter);
        let difference = distance(&logits(&decoder, input, &NoAdapter), &factored);
        assert!(difference < 1e-4, "{}: merged differs by {difference}", golden.name);
    }
}

#[test]
fn a_batch_of_adapters_equals_one_by_one() {
    let decoder = tiny_decoder();
    let wide = LoraConfig::default().with_rank(6, 6.0).with_all_linear();
    let narrow = LoraConfig::default().with_rank(2, 8.0).with_targets(["q_proj", "up_proj"]);
    let (one, two) = (Arc::new(busy_adapter(&wide, 1)), Arc::new(busy_adapter(&narrow, 2)));
    let order = [Some(one.clone()), None, Some(two.clone()), Some(two), Some(one), None];
    let batch = AdapterBatch::new(order.clone()).unwrap();
    let input = noise([6, 4, 32], 9);
    let together = logits(&decoder, input.clone(), &batch);
    for (row, adapter) in order.into_iter().enumerate() {
        let single = input.clone().slice(s![row..row + 1, .., ..]);
        let alone = match &adapter {
            Some(adapter) => logits(&decoder, single, adapter.as_ref()),
            None => logits(&decoder, single, &NoAdapter),
        };
        let rows = alone.len();
        let difference = distance(&together[row * rows..][..rows], &alone);
        assert!(difference < 1e-5, "row {row} differs by {difference}");
    }
}

#[test]
fn a_batch_cannot_replace_the_head_twice() {
    let own = || Adapter::init(&LoraConfig::default(), &tiny_config(), 0, &Device::flex()).unwrap();
    let saving = Arc::new(own().with_saved("lm_head", noise([96, 32], 1)).unwrap());
    let conflict = AdapterBatch::new([Some(saving.clone()), None]);
    assert!(matches!(conflict, Err(Error::BatchConflict { module: "lm_head" })));
    assert!(AdapterBatch::new([Some(saving.clone()), Some(saving)]).is_ok());
}

#[test]
fn saved_modules_replace_embedding_and_head() {
    let decoder = tiny_decoder();
    let adapter = Adapter::init(&LoraConfig::default(), &tiny_config(), 0, &Device::flex()).unwrap();
    let adapter = adapter.with_saved("embed_tokens", noise([96, 32], 1)).unwrap();
    let adapter = adapter.with_saved("lm_head", noise([96, 32], 2)).unwrap();
    let embedded = to_vec(decoder.embed_with(&[7], &adapter).unwrap());
    assert_eq!(embedded, to_vec(noise::<2>([96, 32], 1).slice(s![7..8, ..])));
    assert_ne!(logits(&decoder, noise([1, 2, 32], 3), &adapter), logits(&decoder, noise([1, 2, 32], 3), &NoAdapter));
}

#[test]
fn padding_changes_nothing() {
    let decoder = tiny_decoder();
    let adapter = busy_adapter(&LoraConfig::default(), 5);
    let examples = examples(8);
    let together = evaluate(&decoder, &adapter, &examples, 8).unwrap();
    for (index, example) in examples.iter().enumerate() {
        let alone = evaluate(&decoder, &adapter, std::slice::from_ref(example), 1).unwrap();
        let difference = (alone.nll - together.by_example[index]).abs();
        assert!(difference < 1e-5, "{} differs by {difference}", example.name);
    }
}

fn pattern(pattern: &str) -> LoraConfig {
    let mut config = LoraConfig::default();
    config.target_modules = Targets::Pattern(pattern.into());
    config
}

#[test]
fn ranks_scales_and_targets_follow_peft() {
    let model = tiny_config();
    let sites = |config: &LoraConfig| config.sites(&model);
    let site = |layer, projection| Site { layer, projection };

    let mut config = LoraConfig::default().with_rank(4, 8.0).with_all_linear();
    config.use_rslora = true;
    config.rank_pattern.insert("layers.1.mlp.up_proj".into(), 16);
    config.alpha_pattern.insert(r".*\.0\..*q_proj".into(), 2.0);
    let found = sites(&config).unwrap();
    assert_eq!(found.len(), 14);
    assert_eq!(found[&site(0, Projection::Up)].scale, 4.0);
    assert_eq!((found[&site(1, Projection::Up)].rank, found[&site(1, Projection::Up)].scale), (16, 2.0));
    assert_eq!(found[&site(0, Projection::Query)].scale, 1.0);
    let wide = found[&site(0, Projection::Output)];
    assert_eq!((wide.input, wide.output), (48, 32));

    let chosen: Vec<Site> = sites(&pattern(r".*\.1\.self_attn\.(q|v)_proj")).unwrap().into_keys().collect();
    assert_eq!(chosen, [site(1, Projection::Query), site(1, Projection::Value)]);

    let mut config = LoraConfig::default().with_targets(["self_attn.q_proj", "down_proj"]);
    config.layers_to_transform = Some(vec![1]);
    config.exclude_modules = Some(Targets::Names(vec!["q_proj".into()]));
    assert_eq!(sites(&config).unwrap().into_keys().collect::<Vec<_>>(), [site(1, Projection::Down)]);
}

#[test]
fn impossible_shapes_are_named() {
    let model = tiny_config();
    let field = |config: LoraConfig| match config.sites(&model) {
        Err(Error::Setting { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let plain = LoraConfig::default;
    assert_eq!(field(plain().with_rank(0, 16.0)), "r");
    assert_eq!(field(plain().with_rank(8, f64::NAN)), "lora_alpha");
    assert_eq!(field(plain().with_dropout(1.0)), "lora_dropout");
    assert_eq!(field(plain().with_targets(["query_key_value"])), "target_modules");
    assert_eq!(field(plain().with_targets(["q_proj", "lm_head"])), "target_modules");
    assert_eq!(field(plain().with_modules_to_save(["norm"])), "modules_to_save");
    assert_eq!(field(pattern("(q|v")), "target_modules");
    assert_eq!(field(pattern("x)|(y")), "target_modules");
    assert_eq!(field(pattern("nothing")), "target_modules");
    let mut beyond = plain();
    beyond.layers_to_transform = Some(vec![9]);
    assert_eq!(field(beyond), "target_modules");
    let mut twice = plain();
    twice.rank_pattern.extend([("q_proj".into(), 4), ("self_attn.q_proj".into(), 5)]);
    assert_eq!(field(twice), "rank_pattern");
}

#[test]
fn only_adapted_sites_change() {
    let adapter = busy_adapter(&LoraConfig::default().with_targets(["v_proj"]), 1);
    let (x, y) = (noise([1, 2, 32], 1), noise([1, 2, 24], 2));
    let apply = |projection| adapter.apply(Site { layer: 0, projection }, &x, y.clone()).into_data();
    let site = Site { layer: 0, projection: Projection::Value };
    let delta = adapter.merged_delta(site).expect("it has one").transpose().unsqueeze();
    let wanted = (y.clone() + x.clone().matmul(delta)).into_data();
    apply(Projection::Value).assert_approx_eq::<f32>(&wanted, Tolerance::absolute(1e-6));
    assert_eq!(apply(Projection::Query), y.clone().into_data());
}
