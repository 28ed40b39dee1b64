//! Blocks of a GGUF file, taken as they are.

use std::{fs, path::Path};

use lloco_decoder::{Checkpoint, WeightType, gguf::BlockType};

use super::{distance, load, scores, texts, values};

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
    // The weights are the same numbers; inputs are rounded to 16 bits, keys and values to f16, or all of them to bf16 where
    // the CPU multiplies tiles of that.
    for (weights, tolerance) in
        [(WeightType::Auto, 0.02), (WeightType::Int8, 0.02), (WeightType::Bf16, 0.02), (WeightType::Q4, 0.25)]
    {
        let decoder = load(&checkpoint, weights);
        for ids in texts() {
            let found = distance(&scores(&decoder, &ids), &scores(&exact, &ids));
            assert!(found < tolerance, "{weights:?} of {}: {found}", ids.len());
            if matches!(weights, WeightType::Auto | WeightType::Int8) {
                assert_eq!(values(decoder.embed(&ids).unwrap()), values(exact.embed(&ids).unwrap()));
            }
        }
    }
}
