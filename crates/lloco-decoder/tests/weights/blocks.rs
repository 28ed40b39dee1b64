//! Blocks of a GGUF file, taken as they are or made into the kernels' own.

use std::{fs, path::Path};

use lloco_decoder::{Checkpoint, Decoder, Error, WeightType, burn::tensor::Device, gguf::BlockType, measured};

use super::{distance, load, scores, texts, values};

/// How a model's tensors are stored.
struct Kinds {
    table: BlockType,
    /// Of an output head that is not the table.
    head: Option<BlockType>,
    /// Of the projections, in turns; layer 1 begins with the last.
    projections: [BlockType; 3],
}

/// Outputs and inputs of a layer's projections.
fn projections([width, inner]: [u64; 2]) -> [(&'static str, [u64; 2]); 7] {
    [
        ("attn_q", [width, width]),
        ("attn_k", [width / 2, width]),
        ("attn_v", [width / 2, width]),
        ("attn_output", [width, width]),
        ("ffn_gate", [inner, width]),
        ("ffn_up", [inner, width]),
        ("ffn_down", [width, inner]),
    ]
}

impl Kinds {
    fn of_layer(&self, layer: usize) -> impl Iterator<Item = BlockType> {
        let mut kinds = self.projections;
        if layer == 1 {
            kinds.reverse();
        }
        kinds.into_iter().cycle()
    }
}

/// The f16 scales of a block, where they stand, such that weights come to about 0.1.
fn scales(kind: BlockType) -> (usize, &'static [u8]) {
    match kind {
        BlockType::Q8_0 => (0, &[0x00, 0x14]),
        BlockType::Q4_0 => (0, &[0x00, 0x24]),
        BlockType::Q4_1 => (0, &[0x00, 0x24, 0x00, 0xac]),
        BlockType::Q5_0 => (0, &[0x00, 0x20]),
        BlockType::Q5_1 => (0, &[0x00, 0x20, 0x00, 0xb0]),
        BlockType::Q4K => (0, &[0x00, 0x0c, 0x00, 0x18]),
        BlockType::Q5K => (0, &[0x00, 0x08, 0x00, 0x18]),
        BlockType::Q6K => (208, &[0x00, 0x02]),
        _ => panic!("{kind:?} has no scale"),
    }
}

/// A llama model of random blocks; `alter` may change those of a tensor.
fn gguf(path: &Path, sizes: [u64; 2], kinds: &Kinds, alter: impl Fn(&str, &mut [u8])) {
    let [width, inner] = sizes;
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let field =
        |name: &str, kind: u32, value: &[u8]| [text(name), kind.to_le_bytes().to_vec(), value.to_vec()].concat();
    let size = |name: &str, value: u32| field(name, 4, &value.to_le_bytes());
    let fields = [
        field("general.architecture", 8, &text("llama")),
        size("llama.embedding_length", width as u32),
        size("llama.block_count", 2),
        size("llama.feed_forward_length", inner as u32),
        size("llama.attention.head_count", 4),
        size("llama.attention.head_count_kv", 2),
        size("llama.context_length", 128),
        field("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes()),
    ];
    let mut tensors = vec![("token_embd.weight".to_owned(), [51, width], kinds.table)];
    tensors.extend(kinds.head.map(|kind| ("output.weight".to_owned(), [51, width], kind)));
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let own = projections(sizes).into_iter().zip(kinds.of_layer(layer));
        tensors.extend(own.map(|((part, shape), kind)| (name(part), shape, kind)));
        tensors.extend(["attn_norm", "ffn_norm"].map(|part| (name(part), [width, 1], BlockType::F32)));
    }
    tensors.push(("output_norm.weight".into(), [width, 1], BlockType::F32));

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
        let start = data.len();
        let (at, scales) = scales(kind);
        for _ in 0..rows as usize * columns as usize / kind.block_values() {
            let mut block: Vec<u8> = (0..kind.block_bytes()).map(|_| byte()).collect();
            block[at..at + scales.len()].copy_from_slice(scales);
            data.extend(block);
        }
        alter(&name, &mut data[start..]);
    }
    header.resize(header.len().next_multiple_of(32), 0);
    fs::write(path, [header, data].concat()).unwrap();
}

/// Writes such a model, and opens it.
fn open(sizes: [u64; 2], kinds: &Kinds, alter: impl Fn(&str, &mut [u8])) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    gguf(&path, sizes, kinds, alter);
    let checkpoint = Checkpoint::open(&path).unwrap();
    (dir, checkpoint)
}

#[test]
fn blocks_as_they_are_mean_the_same() {
    let projections = [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4_1];
    let kinds = Kinds { table: BlockType::Q8_0, head: None, projections };
    let (_dir, checkpoint) = open([64, 96], &kinds, |_, _| {});
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

/// Sixteenths of a byte that a weight takes in blocks.
fn sixteenths(kind: BlockType) -> u64 {
    if matches!(kind, BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K) { 10 } else { 17 }
}

/// As files of `Q4_K_M` are, and with the other blocks that become bytes.
const CONVERTED: [Kinds; 2] = [
    Kinds {
        table: BlockType::Q4K,
        head: Some(BlockType::Q6K),
        projections: [BlockType::Q4K, BlockType::Q6K, BlockType::Q4K],
    },
    Kinds { table: BlockType::Q6K, head: None, projections: [BlockType::Q5_0, BlockType::Q5K, BlockType::Q5_1] },
];

const WIDE: [u64; 2] = [256, 512];

#[test]
fn other_blocks_stay_blocks_and_mean_nearly_the_same() {
    // Few weights of the first model are quantised anew, and nearly all of the second.
    for (kinds, [rounded, coarse]) in CONVERTED.iter().zip([[0.03, 0.4], [0.07, 0.7]]) {
        let (_dir, checkpoint) = open(WIDE, kinds, |_, _| {});
        let exact = load(&checkpoint, WeightType::F32);
        // The head's outputs are padded from 51 to 64.
        let mut expected = 64 * WIDE[0] * sixteenths(kinds.head.unwrap_or(kinds.table)) / 16;
        for layer in 0..2 {
            let own = projections(WIDE).into_iter().zip(kinds.of_layer(layer));
            expected += own.map(|((_, [rows, columns]), kind)| rows * columns * sixteenths(kind) / 16).sum::<u64>();
        }
        for weights in [WeightType::Auto, WeightType::Int8, WeightType::Bf16, WeightType::Q4] {
            let tolerance = if weights == WeightType::Q4 { coarse } else { rounded };
            let decoder = load(&checkpoint, weights);
            let bytes = measured::weight_bytes(&decoder) as u64;
            match weights {
                WeightType::Auto | WeightType::Int8 => assert_eq!(bytes, expected, "{weights:?}"),
                WeightType::Q4 => assert!(bytes < expected, "{bytes}"),
                _ => assert!(bytes > 3 * expected / 2, "{weights:?}: {bytes}"),
            }
            for ids in texts() {
                let found = distance(&scores(&decoder, &ids), &scores(&exact, &ids));
                assert!(found < tolerance, "{weights:?} of {}: {found}", ids.len());
            }
            let ids: Vec<u32> = (0..51).collect();
            let embeddings = distance(&values(decoder.embed(&ids).unwrap()), &values(exact.embed(&ids).unwrap()));
            let tolerance = if weights == WeightType::Q4 { 0.1 } else { 0.005 };
            assert!(embeddings < tolerance, "{weights:?}: {embeddings}");
        }
    }
}

#[test]
fn a_tensor_whose_scales_are_too_large_is_held_as_before() {
    // 65504, the largest f16, in the head's first block.
    let alter = |name: &str, blocks: &mut [u8]| {
        if name == "output.weight" {
            blocks[208..210].copy_from_slice(&[0xff, 0x7b]);
        }
    };
    let (_dir, usual) = open(WIDE, &CONVERTED[0], |_, _| {});
    let (_dir, large) = open(WIDE, &CONVERTED[0], alter);
    let bytes = |checkpoint, weights| measured::weight_bytes(&load(checkpoint, weights)) as u64;
    let head = 64 * WIDE[0];
    let expected = bytes(&usual, WeightType::Auto) - head * 17 / 16 + head * 2;
    assert_eq!(bytes(&large, WeightType::Auto), expected);
    let decoder = load(&large, WeightType::Auto);
    let found = distance(&scores(&decoder, &[17]), &scores(&load(&large, WeightType::F32), &[17]));
    assert!(found < 0.03, "{found}");
    match Decoder::load(&large, WeightType::Int8, &Device::flex()) {
        Err(Error::Malformed { detail, .. }) => assert!(detail.contains("lm_head"), "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn scales_that_are_no_numbers_are_errors() {
    let alter = |name: &str, blocks: &mut [u8]| {
        if name == "token_embd.weight" {
            blocks[..2].copy_from_slice(&[0x00, 0x7e]);
        }
    };
    let (_dir, checkpoint) = open(WIDE, &CONVERTED[0], alter);
    for weights in super::ALL {
        match Decoder::load(&checkpoint, weights, &Device::flex()) {
            Err(Error::Malformed { detail, .. }) => assert!(detail.contains("not finite"), "{detail}"),
            other => panic!("{weights:?}: {other:?}"),
        }
    }
}
