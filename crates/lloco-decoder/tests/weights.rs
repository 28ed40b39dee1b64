//! The types that weights are held in: how far each is from f32, and what each refuses.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{env, fs, path::Path, process::Command};

use lloco_decoder::{
    Checkpoint, Decoder, DecoderConfig, Error, GenerateConfig, KvCache, NoAdapter, Pass, Prompt, WeightType,
    burn::tensor::{Device, Tensor},
    gguf::BlockType,
};
use serde_json::json;

const ALL: [WeightType; 5] = [WeightType::Auto, WeightType::F32, WeightType::Bf16, WeightType::Int8, WeightType::Q4];
const IDS: [u32; 9] = [3, 41, 7, 0, 12, 50, 50, 9, 22];

/// Widths that are no multiples of 32, and of 16.
fn odd() -> Checkpoint {
    let config = json!({
        "model_type": "llama", "hidden_size": 44, "intermediate_size": 75, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 51,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true,
    });
    Checkpoint::random(DecoderConfig::from_json(&config.to_string(), Path::new("odd")).unwrap(), 5)
}

fn load(checkpoint: &Checkpoint, weights: WeightType) -> Decoder {
    Decoder::load(checkpoint, weights, &Device::flex()).unwrap()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Scores behind every token.
fn scores(decoder: &Decoder) -> Vec<f32> {
    values(decoder.logits(decoder.forward(decoder.embed(&IDS).unwrap(), Pass::new()).unwrap()))
}

/// `|found - wanted| / |wanted|`, as vectors.
fn distance(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(wanted).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut wanted.iter().map(|x| f64::from(*x)))
}

#[test]
fn each_type_stays_within_its_tolerance() {
    let checkpoint = odd();
    let wanted = scores(&load(&checkpoint, WeightType::F32));
    for (weights, tolerance) in
        [(WeightType::Auto, 0.01), (WeightType::Bf16, 0.01), (WeightType::Int8, 0.02), (WeightType::Q4, 0.2)]
    {
        let found = distance(&scores(&load(&checkpoint, weights)), &wanted);
        assert!(found < tolerance, "{weights:?}: {found}");
        assert!(found > 1e-6, "{weights:?} is not what was loaded: {found}");
    }
}

#[test]
fn decoding_token_by_token_equals_reading_at_once() {
    let checkpoint = odd();
    for weights in ALL {
        let decoder = load(&checkpoint, weights);
        let mut cache = KvCache::new(&decoder, 1, IDS.len());
        let mut found = Vec::new();
        for id in IDS {
            let hidden = decoder.forward(decoder.embed(&[id]).unwrap(), Pass::new().cache(&mut cache)).unwrap();
            found.extend(values(decoder.logits(hidden)));
        }
        // Where the CPU multiplies tiles, many rows are rounded to bf16, and few are not; but few rows are rounded to eight
        // bits beside weights of four.
        let tolerance = match weights {
            WeightType::F32 => 1e-5,
            WeightType::Q4 => 0.03,
            _ => 0.02,
        };
        let found = distance(&found, &scores(&decoder));
        assert!(found < tolerance, "{weights:?}: {found}");
    }
}

#[test]
fn losses_are_those_of_the_scores() {
    let checkpoint = odd();
    for weights in ALL {
        let decoder = load(&checkpoint, weights);
        let hidden = decoder.forward(decoder.embed(&IDS).unwrap(), Pass::new()).unwrap().squeeze_dim::<2>(0);
        let targets: Vec<u32> = IDS.iter().rev().copied().collect();
        let found = values(decoder.losses(hidden.clone(), &targets, &NoAdapter).unwrap());
        for (row, target) in targets.iter().enumerate() {
            let scores = scores(&decoder)[row * 51..][..51].to_vec();
            let log = scores.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let wanted = log - f64::from(scores[*target as usize]);
            assert!((f64::from(found[row]) - wanted).abs() < 1e-3, "{weights:?}: {} for {wanted}", found[row]);
        }
        let refused = decoder.losses(hidden.clone(), &[51; 9], &NoAdapter);
        assert!(matches!(refused, Err(Error::OutOfVocabulary { id: 51, position: 0, vocab_size: 51 })));
        assert!(matches!(decoder.losses(hidden, &[1], &NoAdapter), Err(Error::Mismatch { .. })));
    }
}

#[test]
fn gradients_of_the_input_point_the_same_way() {
    let checkpoint = odd();
    let gradient = |weights| {
        let decoder = load(&checkpoint, weights);
        let input = decoder.embed(&IDS).unwrap().autodiff().require_grad();
        let hidden = decoder.forward(input.clone(), Pass::new()).unwrap().squeeze_dim::<2>(0);
        let losses = decoder.losses(hidden, &IDS, &NoAdapter).unwrap();
        values(input.grad(&losses.sum().backward()).unwrap())
    };
    let wanted = gradient(WeightType::F32);
    for (weights, tolerance) in [(WeightType::Bf16, 0.03), (WeightType::Int8, 0.05), (WeightType::Q4, 0.4)] {
        let found = distance(&gradient(weights), &wanted);
        assert!(found < tolerance, "{weights:?}: {found}");
    }
}

#[test]
fn several_models_in_threads_do_not_disturb_each_other() {
    let checkpoint = odd();
    let alone = ALL.map(|weights| scores(&load(&checkpoint, weights)));
    std::thread::scope(|scope| {
        let together = ALL.map(|weights| scope.spawn(move || scores(&load(&odd(), weights))));
        for (alone, together) in alone.iter().zip(together) {
            assert_eq!(alone, &together.join().unwrap());
        }
    });
}

// --- numbers that are none ---

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
            let hidden = values(decoder.forward(decoder.embed(&[1, 2, 3]).unwrap(), Pass::new()).unwrap());
            assert!(hidden.iter().any(|x| x.is_nan()), "{weights:?} hides {number}");
        }
    }
}

// --- blocks of a GGUF file ---

/// A llama model whose weights are random blocks of three types, one layer `[q, k, v] = [Q8_0, Q4_0, Q4_1]`, the next
/// the other way round.
fn gguf(path: &Path) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let field =
        |name: &str, kind: u32, value: &[u8]| [text(name), kind.to_le_bytes().to_vec(), value.to_vec()].concat();
    let size = |name: &str, value: u32| field(name, 4, &value.to_le_bytes());
    let fields = [
        field("general.architecture", 8, &text("llama")),
        size("llama.embedding_length", 64),
        size("llama.block_count", 2),
        size("llama.feed_forward_length", 96),
        size("llama.attention.head_count", 4),
        size("llama.attention.head_count_kv", 2),
        size("llama.context_length", 128),
        field("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes()),
    ];
    let mut tensors = vec![("token_embd.weight".to_owned(), [51, 64], BlockType::Q8_0)];
    for layer in 0..2 {
        let mut kinds = [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4_1];
        if layer == 1 {
            kinds.reverse();
        }
        let shapes = [
            ("attn_q", [64, 64]),
            ("attn_k", [32, 64]),
            ("attn_v", [32, 64]),
            ("attn_output", [64, 64]),
            ("ffn_gate", [96, 64]),
            ("ffn_up", [96, 64]),
            ("ffn_down", [64, 96]),
        ];
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors
            .extend(shapes.into_iter().zip(kinds.into_iter().cycle()).map(|((part, s), kind)| (name(part), s, kind)));
        tensors.extend(["attn_norm", "ffn_norm"].map(|part| (name(part), [64, 1], BlockType::F32)));
    }
    tensors.push(("output_norm.weight".into(), [64, 1], BlockType::F32));

    let mut state = 7_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut header = [&b"GGUF"[..], &3_u32.to_le_bytes(), &(tensors.len() as u64).to_le_bytes()].concat();
    header.extend((fields.len() as u64).to_le_bytes());
    header.extend(fields.concat());
    let mut data = Vec::new();
    for (name, [rows, columns], kind) in tensors {
        data.resize(data.len().next_multiple_of(32), 0_u8);
        header.extend(text(&name));
        let dimensions = if kind == BlockType::F32 { vec![rows] } else { vec![columns, rows] };
        header.extend((dimensions.len() as u32).to_le_bytes());
        header.extend(dimensions.iter().flat_map(|n: &u64| n.to_le_bytes()));
        header.extend(kind.id().to_le_bytes());
        header.extend((data.len() as u64).to_le_bytes());
        if kind == BlockType::F32 {
            data.extend((0..rows).flat_map(|i| (1.0 + i as f32 / 100.0).to_le_bytes()));
            continue;
        }
        // f16: 0x1400 is about 0.001, 0x2400 about 0.016, 0xac00 about -0.06.
        let (scale, rest) = match kind {
            BlockType::Q8_0 => (vec![0x00, 0x14], 32),
            BlockType::Q4_0 => (vec![0x00, 0x24], 16),
            _ => (vec![0x00, 0x24, 0x00, 0xac], 16),
        };
        for _ in 0..rows * columns / 32 {
            data.extend(&scale);
            data.extend((0..rest).map(|_| byte()));
        }
    }
    header.resize(header.len().next_multiple_of(32), 0);
    fs::write(path, [header, data].concat()).unwrap();
}

#[test]
fn blocks_as_they_are_mean_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    gguf(&path);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let exact = load(&checkpoint, WeightType::F32);
    let wanted = scores(&exact);
    // The weights are the same numbers; inputs are rounded to 16 bits, keys and values to f16, or all of them to bf16 where
    // the CPU multiplies tiles of that.
    for (weights, tolerance) in [(WeightType::Auto, 0.02), (WeightType::Int8, 0.02), (WeightType::Bf16, 0.02)] {
        let decoder = load(&checkpoint, weights);
        let found = distance(&scores(&decoder), &wanted);
        assert!(found < tolerance, "{weights:?}: {found}");
        if weights != WeightType::Bf16 {
            assert_eq!(values(decoder.embed(&IDS).unwrap()), values(exact.embed(&IDS).unwrap()));
        }
    }
    let found = distance(&scores(&load(&checkpoint, WeightType::Q4)), &wanted);
    assert!(found < 0.2, "Q4: {found}");
}

// --- other machines ---

/// Scores of all types, in one line each.
fn report() -> String {
    let checkpoint = odd();
    let config = GenerateConfig::greedy(5);
    ALL.map(|weights| {
        let decoder = load(&checkpoint, weights);
        let tokens = decoder.generate(&Prompt::new().text(&IDS), &config, NoAdapter).unwrap();
        let tokens: Vec<u32> = tokens.map(|token| token.unwrap()).collect();
        serde_json::to_string(&(scores(&decoder), tokens)).unwrap()
    })
    .join("\n")
}

/// Writes the report where the parent process wants it; alone it does nothing.
#[test]
fn child_that_reports() {
    if let Some(path) = env::var_os("LLOCO_TEST_REPORT") {
        fs::write(path, report()).unwrap();
    }
}

#[test]
fn portable_code_and_any_number_of_threads_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report");
    let wanted = report();
    for (name, value, tolerance) in [
        // Instructions for bf16 round what portable code does not.
        ("LLOCO_KERNELS", "portable", 0.02),
        ("LLOCO_KERNELS", "abacus", 1e-3),
        ("RAYON_NUM_THREADS", "0", 1e-3),
        ("RAYON_NUM_THREADS", "1", 1e-3),
        ("RAYON_NUM_THREADS", "1000", 1e-3),
    ] {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_reports", "--test-threads=1"])
            .env("LLOCO_TEST_REPORT", &path)
            .env(name, value)
            .output()
            .unwrap();
        assert!(child.status.success(), "{name}={value}: {}", String::from_utf8_lossy(&child.stdout));
        let found = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        for ((found, wanted), weights) in found.lines().zip(wanted.lines()).zip(ALL) {
            let [found, wanted] =
                [found, wanted].map(|line| serde_json::from_str::<(Vec<f32>, Vec<u32>)>(line).unwrap());
            // Sums in another order; inputs of four-bit weights may round to the other side, half a step of 127.
            let tolerance = match weights {
                WeightType::F32 => 1e-3,
                WeightType::Q4 => 0.02,
                _ => tolerance,
            };
            let distance = distance(&found.0, &wanted.0);
            assert!(distance < tolerance, "{name}={value}, {weights:?}: {distance}");
            assert!(found.1 == wanted.1 || weights == WeightType::Q4, "{name}={value}, {weights:?}");
        }
    }
}
