//! PEFT directories: exact round trips, foreign options, hostile files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{busy_adapter, goldens, noise, tiny_config, to_vec};
use lloco_decoder::burn::tensor::{Device, Tensor, bf16, f16};
use lloco_lora::{Adapter, Error, LoraConfig, Result, StoredType, Targets};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Name, shape and values of a tensor in a file.
type Stored = (String, Vec<usize>, Vec<f32>);

fn load(dir: &Path) -> Result<Adapter> {
    Adapter::load(dir, &tiny_config(), &Device::flex())
}

fn values(adapter: &Adapter) -> BTreeMap<String, Vec<f32>> {
    adapter.parameters().into_iter().map(|(name, tensor)| (name, to_vec(tensor))).collect()
}

/// A saved adapter to spoil.
fn saved() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    busy_adapter(&LoraConfig::default().with_rank(2, 4.0), 3).save(dir.path(), StoredType::F32).unwrap();
    dir
}

fn edit_config(dir: &Path, field: &str, value: Value) {
    let path = dir.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// Rewrites the weights, tensor by tensor.
fn edit_weights(dir: &Path, edit: impl Fn(String, Vec<usize>, Vec<f32>) -> Option<Stored>) {
    edit_stored(dir, Dtype::F32, |value| value.to_le_bytes().to_vec(), edit);
}

fn edit_stored(
    dir: &Path,
    dtype: Dtype,
    bytes: impl Fn(f32) -> Vec<u8>,
    edit: impl Fn(String, Vec<usize>, Vec<f32>) -> Option<Stored>,
) {
    let path = dir.join("adapter_model.safetensors");
    let file = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let edited = file.iter().filter_map(|(name, view)| {
        let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        edit(name.to_owned(), view.shape().to_vec(), values)
    });
    let edited: Vec<_> = edited
        .map(|(name, shape, values)| (name, shape, values.into_iter().flat_map(&bytes).collect::<Vec<u8>>()))
        .collect();
    let views = edited.iter().map(|(name, shape, data)| (name, TensorView::new(dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

#[test]
fn round_trip_is_exact() {
    for golden in goldens() {
        let adapter = golden.adapter();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/adapter");
        adapter.save(&path, StoredType::F32).unwrap();
        let again = Adapter::load(&path, golden.decoder.config(), &Device::flex()).unwrap();
        assert_eq!(values(&again), values(&adapter), "{}", golden.name);
        assert_eq!(again.config(), adapter.config(), "{}", golden.name);
        let names = |folder: &Path| -> Vec<String> {
            let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
            SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(String::from).collect()
        };
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(names(&path)), sorted(names(&golden.folder.join("adapter"))), "{}", golden.name);
    }
}

#[test]
fn every_setting_survives_a_round_trip() {
    let mut config = LoraConfig::default().with_rank(3, 7.5).with_dropout(0.25);
    config.target_modules = Targets::Pattern(r".*\.(q_proj|up_proj)".into());
    config.exclude_modules = Some(Targets::Names(vec!["layers.0.mlp.up_proj".into()]));
    config.layers_to_transform = Some(vec![0, 1]);
    config.use_rslora = true;
    config.rank_pattern.insert("up_proj".into(), 5);
    config.alpha_pattern.insert("q_proj".into(), 2.0);
    let adapter = busy_adapter(&config, 1).with_saved("embed_summary", noise([4, 32], 7)).unwrap();
    let adapter = adapter.with_saved("embed_tokens", noise([96, 32], 8)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    adapter.save(dir.path(), StoredType::F32).unwrap();
    let again = load(dir.path()).unwrap();
    assert_eq!(again.config(), adapter.config());
    assert_eq!(values(&again), values(&adapter));
    assert_eq!(again.saved("embed_summary").map(Tensor::dims), Some([4, 32]));
}

#[test]
fn half_precision_is_read_and_written() {
    let adapter = busy_adapter(&LoraConfig::default(), 1);
    let dir = tempfile::tempdir().unwrap();
    adapter.save(dir.path(), StoredType::F16).unwrap();
    let halved = |value: &f32| f16::from_f32(*value).to_f32();
    for (name, found) in values(&load(dir.path()).unwrap()) {
        assert_eq!(found, values(&adapter)[&name].iter().map(halved).collect::<Vec<_>>());
    }
    let dir = saved();
    let exact = values(&load(dir.path()).unwrap());
    edit_stored(dir.path(), Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes().to_vec(), |n, s, v| Some((n, s, v)));
    for (name, found) in values(&load(dir.path()).unwrap()) {
        assert_eq!(found, exact[&name].iter().map(|v| bf16::from_f32(*v).to_f32()).collect::<Vec<_>>());
    }
    let huge = adapter.map(|_, tensor| tensor.mul_scalar(1e9));
    let target = dir.path().join("huge");
    assert!(matches!(huge.save(&target, StoredType::F16), Err(Error::Setting { .. })));
    assert!(!target.exists());
}

#[test]
fn older_spellings_of_names_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = busy_adapter(&LoraConfig::default(), 1).with_saved("embed_summary", noise([4, 32], 7)).unwrap();
    adapter.save(dir.path(), StoredType::F32).unwrap();
    edit_weights(dir.path(), |name, shape, values| {
        let name = name.replace("lora_A.weight", "lora_A.default.weight");
        Some((name.replace("embed_summary.", "embed_summary.modules_to_save.default."), shape, values))
    });
    assert_eq!(values(&load(dir.path()).unwrap()), values(&adapter));
}

#[test]
fn options_that_change_nothing_are_ignored() {
    let dir = saved();
    let options = [
        ("base_model_name_or_path", json!("some/model")),
        ("use_dora", json!(false)),
        ("eva_config", json!(null)),
        ("loftq_config", json!({})),
        ("revision", json!("main")),
        ("peft_version", json!("0.21.2")),
        ("init_lora_weights", json!("gaussian")),
        ("layer_replication", json!(null)),
        ("something_new", json!(null)),
        ("layers_pattern", json!("layers")),
        ("task_type", json!(null)),
        ("modules_to_save", json!(null)),
    ];
    for (field, value) in options {
        edit_config(dir.path(), field, value);
    }
    load(dir.path()).unwrap();
}

#[test]
fn options_that_change_the_computation_are_refused_by_name() {
    let options = [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("fan_in_fan_out", json!(true)),
        ("peft_type", json!("IA3")),
        ("layer_replication", json!([[0, 4]])),
        ("trainable_token_indices", json!([1])),
        ("something_new", json!(1)),
        ("init_lora_weights", json!("pissa")),
        ("lora_bias", json!(true)),
        ("layers_pattern", json!("blocks")),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!("(")),
        ("r", json!(0)),
        ("lora_alpha", json!(-1)),
        ("modules_to_save", json!(["score"])),
        ("lora_dropout", json!(1.5)),
    ];
    for (expected, value) in options {
        let dir = saved();
        edit_config(dir.path(), expected, value.clone());
        match load(dir.path()) {
            Err(Error::Unsupported { path, field, .. }) => {
                assert!(path.ends_with("adapter_config.json"));
                assert_eq!(field, expected, "{value}");
            }
            other => panic!("{expected} = {value}: {other:?}"),
        }
    }
}

#[test]
fn tensors_must_fit_model_and_configuration() {
    const A: &str = "base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight";
    let spoil = |edit: &dyn Fn(String, Vec<usize>, Vec<f32>) -> Option<Stored>| {
        let dir = saved();
        edit_weights(dir.path(), edit);
        load(dir.path()).unwrap_err()
    };
    let missing = spoil(&|name, shape, values| (name != A).then_some((name, shape, values)));
    assert!(matches!(missing, Error::MissingTensor { name, .. } if A.ends_with(&name)));
    let renamed = spoil(&|name, shape, values| Some((name.replace("layers.1.", "layers.7."), shape, values)));
    assert!(matches!(renamed, Error::MissingTensor { .. }));
    let foreign =
        spoil(&|name, shape, values| Some((if name == A { "k_proj.weight".into() } else { name }, shape, values)));
    assert!(matches!(foreign, Error::UnexpectedTensor { name, .. } if name == "k_proj.weight"));
    let other = spoil(&|name, shape, values| Some((name, vec![shape[1], shape[0]], values)));
    assert!(matches!(other, Error::ShapeMismatch { expected, found, .. } if expected[0] == found[1]));
    let nan = spoil(&|name, shape, values| Some((name, shape, vec![f32::NAN; values.len()])));
    assert!(matches!(nan, Error::Malformed { .. }));
    let dir = saved();
    edit_config(dir.path(), "target_modules", json!(["q_proj", "k_proj", "v_proj"]));
    assert!(matches!(load(dir.path()), Err(Error::UnexpectedTensor { .. })));
}

#[test]
fn an_adapter_for_another_model_names_tensor_and_shapes() {
    let golden = goldens().next().unwrap();
    let error = Adapter::load(golden.folder.join("adapter"), &tiny_config(), &Device::flex()).unwrap_err();
    match &error {
        Error::ShapeMismatch { name, expected, found, .. } => {
            assert!(name.contains("q_proj.lora_A"));
            assert_ne!(expected, found);
        }
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains("another model"));
}

#[test]
fn damaged_files_are_errors() {
    let dir = saved();
    let (config, weights) = (dir.path().join("adapter_config.json"), dir.path().join("adapter_model.safetensors"));
    let good = (fs::read(&config).unwrap(), fs::read(&weights).unwrap());
    for len in [0, 4, 8, 9, 100, good.1.len() - 1] {
        fs::write(&weights, &good.1[..len]).unwrap();
        assert!(matches!(load(dir.path()), Err(Error::Malformed { .. })), "{len} bytes");
    }
    let mut lying = good.1.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&weights, &lying).unwrap();
    assert!(matches!(load(dir.path()), Err(Error::Malformed { .. })));
    let mut longer = good.1.clone();
    longer.extend([0; 16]);
    fs::write(&weights, &longer).unwrap();
    assert!(matches!(load(dir.path()), Err(Error::Malformed { .. })));

    fs::write(&weights, &good.1).unwrap();
    for text in [
        "",
        "{",
        "[]",
        "{\"peft_type\": \"LORA\"}",
        "{\"peft_type\": \"LORA\", \"r\": \"x\", \"lora_alpha\": 1, \"target_modules\": []}",
    ] {
        fs::write(&config, text).unwrap();
        assert!(matches!(load(dir.path()), Err(Error::Malformed { .. })), "{text}");
    }
    fs::write(&config, &good.0).unwrap();
    load(dir.path()).unwrap();
    fs::remove_file(&weights).unwrap();
    assert!(matches!(load(dir.path()), Err(Error::Io { path, .. }) if path == weights));
    fs::write(dir.path().join("adapter_model.bin"), b"pickle").unwrap();
    assert!(matches!(load(dir.path()), Err(Error::Pickled { .. })));
    assert!(matches!(load(&dir.path().join("nowhere")), Err(Error::Io { .. })));
}

#[test]
fn saving_never_overwrites_and_leaves_nothing_half_made() {
    let dir = saved();
    let before = fs::read(dir.path().join("adapter_model.safetensors")).unwrap();
    let adapter = busy_adapter(&LoraConfig::default(), 9);
    assert!(matches!(adapter.save(dir.path(), StoredType::F32), Err(Error::Exists { .. })));
    assert_eq!(fs::read(dir.path().join("adapter_model.safetensors")).unwrap(), before);

    // What a killed process left behind does not stand in the way.
    fs::create_dir(dir.path().join(".new.partial")).unwrap();
    fs::write(dir.path().join(".new.partial/junk"), b"junk").unwrap();
    adapter.save(dir.path().join("new"), StoredType::F32).unwrap();
    assert!(!dir.path().join("new/junk").exists() && !dir.path().join(".new.partial").exists());

    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(adapter.save(file.join("inside"), StoredType::F32), Err(Error::Io { .. })));
    let incomplete =
        Adapter::init(&LoraConfig::default().with_modules_to_save(["lm_head"]), &tiny_config(), 0, &Device::flex());
    let target = dir.path().join("incomplete");
    assert!(matches!(incomplete.unwrap().save(&target, StoredType::F32), Err(Error::MissingTensor { .. })));
    assert!(!target.exists());
}
